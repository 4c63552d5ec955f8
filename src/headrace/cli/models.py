"""`headrace pull` and `headrace models`."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.cli.logs import set_up_logging
from headrace.config.sections import LoggingConfig
from headrace.hub import list_models, pull


def pull_models(names: Sequence[str]) -> int:
    """Fetch each and print where it is. Raises `ModelNotFound` at the first that cannot be fetched."""
    set_up_logging(LoggingConfig())
    for name in names:
        print(pull(name, progress=True))
    return 0


def show_models() -> int:
    for model in list_models():
        where = str(model.path) if model.present else f"not here: headrace pull {model.name}"
        print(f"{model.name:<14}{model.task:<10}{model.size / 1e6:>6.0f} MB  {model.description}")
        print(f"{'':<14}{model.licence}")
        print(f"{'':<14}{where}")
    return 0
