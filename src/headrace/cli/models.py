"""`headrace pull` and `headrace models`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from headrace.cli.logs import set_up_logging
from headrace.config.sections import LoggingConfig
from headrace.hub import list_models, pull


def pull_models(names: Sequence[str]) -> int:
    """Fetch each and print where it is. Raises `ModelNotFound` at the first that cannot be fetched."""
    set_up_logging(LoggingConfig())
    for name in names:
        print(pull(name, progress=True))
    return 0


def show_models(*, as_json: bool) -> int:
    """What has a short name, and what is on this machine of it."""
    models = list_models()
    if as_json:
        print(json.dumps([asdict(model) for model in models], default=str))
        return 0
    for model in models:
        where = str(model.path) if model.present else f"not here: headrace pull {model.name}"
        print(f"{model.name:<14}{model.task:<10}{model.size / 1e6:>6.0f} MB  {model.description}")
        print(f"{'':<14}{model.licence}")
        print(f"{'':<14}{where}")
    return 0


def show_served(url: str, api_key: str | None, *, as_json: bool) -> int:
    """What a running server serves. Raises `ConfigError` and `RemoteFailed`."""
    import msgspec

    from headrace.cli.remote import Remote

    with Remote(url=url, model=None, api_key=api_key).connection() as client:
        served = client.models()
    if as_json:
        print(msgspec.json.encode(served).decode())
        return 0
    for model in served:
        context = "" if model.max_model_len is None else f"{model.max_model_len} tokens"
        root = "" if model.root in (None, model.id) else f"from {model.root}"
        print(f"{model.id:<32}{context:<16}{root}".rstrip())
    return 0
