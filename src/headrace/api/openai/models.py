"""GET /v1/models, and which names a request may use."""

from __future__ import annotations

from headrace.api.openai.wire import ModelCard, ModelList, ModelPermission
from headrace.core.errors import NotFound
from headrace.service import Services


def check_model(name: str | None, services: Services) -> None:
    """Absent or empty means the served model. Raises `NotFound` for any other name than a served one."""
    if name:
        _check_served(name, services)


def model_list(services: Services) -> ModelList:
    return ModelList(data=[model_card(name, services) for name in services.model_names])


def model_card(name: str, services: Services) -> ModelCard:
    """Raises `NotFound` for a name that is not served, `NotReady` before the model is loaded."""
    max_model_len = services.generator.max_model_len
    _check_served(name, services)
    return ModelCard(
        id=name,
        created=services.created,
        root=services.model_root,
        max_model_len=max_model_len,
        permission=[ModelPermission(id=f"modelperm-{name}", created=services.created)],
    )


def _check_served(name: str, services: Services) -> None:
    if name not in services.model_names:
        aliases = ", ".join(services.model_names)
        raise NotFound(f"The model `{name}` does not exist. Valid aliases: {aliases}.", parameter="model")
