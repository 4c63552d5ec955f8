"""Which names a request may call the model by."""

from __future__ import annotations

from headrace.core.errors import NotFound
from headrace.service import Services


def check_model(name: str | None, services: Services) -> None:
    """Absent or empty means the served model. Raises `NotFound` for any other name than a served one."""
    if name:
        check_served(name, services)


def check_served(name: str, services: Services) -> None:
    """Raises `NotFound` for a name that is not served."""
    if name not in services.model_names:
        aliases = ", ".join(services.model_names)
        raise NotFound(f"The model `{name}` does not exist. Valid aliases: {aliases}.", parameter="model")
