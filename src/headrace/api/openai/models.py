"""GET /v1/models."""

from __future__ import annotations

from headrace.api.model_names import check_served
from headrace.api.openai.wire import ModelCard, ModelList, ModelPermission
from headrace.service import Services


def model_list(services: Services) -> ModelList:
    return ModelList(data=[model_card(name, services) for name in services.model_names])


def model_card(name: str, services: Services) -> ModelCard:
    """Raises `NotFound` for a name that is not served, `NotReady` before the model is loaded."""
    max_model_len = services.generator.max_model_len
    check_served(name, services)
    return ModelCard(
        id=name,
        created=services.created,
        root=services.model_root,
        max_model_len=max_model_len,
        permission=[ModelPermission(id=f"modelperm-{name}", created=services.created)],
    )
