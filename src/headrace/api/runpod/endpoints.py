"""Endpoint ids: `default`, and every name of every served model."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.config.sections import ServedModelConfig
from headrace.core.errors import NotFound

DEFAULT = "default"


class Endpoints:
    """Each model has a queue, and all its names stand for that. The queue of the first is called `default`.

    A job of a queue is meant for its model. `default` is for whichever model can do what a job asks.
    """

    def __init__(self, models: Sequence[ServedModelConfig]) -> None:
        first, *others = models
        self._queues = {DEFAULT: DEFAULT, **dict.fromkeys(map(endpoint_id, first.names), DEFAULT)}
        self._models: dict[str, str | None] = {DEFAULT: None}
        for model in others:
            queue = endpoint_id(model.names[0])
            if self._queues.setdefault(queue, queue) != queue:
                continue  # two names that are alike but for their slashes: the first model has the endpoint
            self._models[queue] = model.names[0]
            for name in model.names:
                self._queues.setdefault(endpoint_id(name), queue)

    @property
    def queues(self) -> tuple[str, ...]:
        return tuple(self._models)

    def queue_of(self, given: str) -> str:
        """The queue behind an endpoint id. Raises `NotFound`."""
        if given not in self._queues:
            raise NotFound(f"There is no endpoint {given!r}.", parameter="endpoint")
        return self._queues[given]

    def model_of(self, queue: str) -> str | None:
        """The model that jobs of a queue are for if they name none; None: the first that can do what they ask."""
        return self._models.get(queue)


def endpoint_id(model_name: str) -> str:
    """A model's name as one step of a path."""
    return model_name.replace("/", "--")
