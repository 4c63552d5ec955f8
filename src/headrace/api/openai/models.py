"""GET /v1/models."""

from __future__ import annotations

from headrace.api.openai.wire import ModelCard, ModelList, ModelPermission
from headrace.core.errors import NotReady
from headrace.service import ServedModel, Services


def model_list(services: Services) -> ModelList:
    """Raises `NotReady` until those that are not loaded on first use are loaded."""
    return ModelList(data=[_card(name, model, services) for model in services.models for name in model.names])


def model_card(name: str, services: Services) -> ModelCard:
    """Raises `NotFound` for a name that is not served, `NotReady` before the model is loaded."""
    return _card(name, services.find(name), services)


def _card(name: str, model: ServedModel, services: Services) -> ModelCard:
    runs = model.loaded
    if runs is None and not model.config.lazy:
        raise NotReady("The model is still being loaded.")
    return ModelCard(
        id=name,
        created=services.created,
        root=model.config.model.model,
        max_model_len=None if runs is None else runs.max_model_len,
        permission=[ModelPermission(id=f"modelperm-{name}", created=services.created)],
    )
