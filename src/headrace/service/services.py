"""Everything a protocol family is given: the names of the model, and its generator once it is loaded."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from headrace.core.errors import NotReady
from headrace.runtime.client import EngineState

if TYPE_CHECKING:
    from headrace.metrics import Metrics
    from headrace.service.generation import Generator


class Services:
    """What one server offers. Made before the model is loaded, so that the socket can open at once.

    `model_names` are the names the model answers to; the first is the one shown in responses. `model_root` is the model
    argument of the command line. `created` is when the server started, in Unix seconds.
    """

    def __init__(self, *, model_names: tuple[str, ...], model_root: str, metrics: Metrics | None) -> None:
        self.model_names = model_names
        self.model_root = model_root
        self.metrics = metrics
        self.created = int(time.time())
        self._generator: Generator | None = None

    @property
    def generator(self) -> Generator:
        """Raises `NotReady` until the model is loaded."""
        if self._generator is None:
            raise NotReady("The model is still being loaded.")
        return self._generator

    @property
    def healthy(self) -> bool:
        """Whether a request sent now would be run."""
        return self.engine_state is EngineState.READY

    @property
    def engine_state(self) -> EngineState:
        return EngineState.LOADING if self._generator is None else self._generator.engine_state

    def open(self, generator: Generator) -> None:
        """The model is loaded: from now on `generator` is there."""
        self._generator = generator
