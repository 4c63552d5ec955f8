"""Endpoint ids: `default`, and every name of the served model."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.errors import NotFound

DEFAULT = "default"


class Endpoints:
    """All ids stand for the one model that is served, so they share one queue, which is called `default`."""

    def __init__(self, model_names: Sequence[str]) -> None:
        self._ids = {DEFAULT, *(endpoint_id(name) for name in model_names)}

    def queue_of(self, given: str) -> str:
        """The queue behind an endpoint id. Raises `NotFound`."""
        if given not in self._ids:
            raise NotFound(f"There is no endpoint {given!r}.", parameter="endpoint")
        return DEFAULT


def endpoint_id(model_name: str) -> str:
    """A model's name as one step of a path."""
    return model_name.replace("/", "--")
