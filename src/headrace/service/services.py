"""Everything a protocol family is given: the models of the server, each with what runs it once it is loaded."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from headrace.core.errors import BadRequest, NotFound
from headrace.core.pooling import PoolingTask
from headrace.runtime.client import EngineState
from headrace.service.roles import GENERATE, Use, in_words, known_names
from headrace.service.served_model import ServedModel

if TYPE_CHECKING:
    from headrace.metrics import Metrics
    from headrace.service.generation import Generator
    from headrace.service.pooler import Pooler


class Services:
    """What one server offers. Made before its models are loaded, so that the socket can open at once.

    `models` has at least one. A request that names none of them means the first that can do what it wants. `created`
    is when the server started, in Unix seconds.
    """

    def __init__(self, models: Sequence[ServedModel], metrics: Metrics | None) -> None:
        self.models = tuple(models)
        self.metrics = metrics
        self.created = int(time.time())

    @property
    def healthy(self) -> bool:
        """Whether a request sent now would be run, for whichever model."""
        return self.engine_state is EngineState.READY

    @property
    def engine_state(self) -> EngineState:
        """That of the first model that is not ready; those that are loaded on first use do not count before that."""
        states = (model.state or EngineState.READY for model in self.models)
        return next((state for state in states if state is not EngineState.READY), EngineState.READY)

    def find(self, name: str) -> ServedModel:
        """Raises `NotFound` for a name that is not served."""
        for model in self.models:
            if name in model.names:
                return model
        aliases = ", ".join(name for model in self.models for name in model.names)
        raise NotFound(f"The model `{name}` does not exist. Valid aliases: {aliases}.", parameter="model")

    def choose(self, name: str | None, *uses: Use) -> ServedModel:
        """The model that a request names; if it names none, the first that can be put to the first of `uses`, or else
        to the second, and so on.

        Raises `NotFound` for a name that is not served, and `BadRequest` if the model can do none of it, or no model.
        """
        if name:
            model = self.find(name)
            if all(model.can(use) is False for use in uses):
                raise self._refusal(model, uses)
            return model
        for answer in (True, None):  # one that may be able to comes after all that are known to be
            for use in uses:
                for model in self.models:
                    if model.can(use) is answer:
                        return model
        raise self._refusal(None, uses)

    async def loaded(self, name: str | None) -> Generator | Pooler:
        """What runs the model that a request names, or the first model, for what any of them can do: its text.

        Raises `NotFound`, and what `ServedModel.ready` raises.
        """
        return await (self.find(name) if name else self.models[0]).ready()

    async def generator(self, name: str | None) -> Generator:
        """The generator of the model that a request names; of the first that generates if it names none.

        A lazy model is loaded first. Raises what `choose` and `ServedModel.ready` raise.
        """
        return cast("Generator", await self._ready(name, GENERATE))

    async def pooler(self, name: str | None, *tasks: PoolingTask) -> Pooler:
        """The pooler of the model that a request names; if it names none, of the first that can do the first of
        `tasks`, or else the second, and so on. Raises as `generator`.
        """
        return cast("Pooler", await self._ready(name, *tasks))

    async def _ready(self, name: str | None, *uses: Use) -> Generator | Pooler:
        model = self.choose(name, *uses)
        runs = await model.ready()
        if not any(model.can(use) for use in uses):  # as its files have shown only now
            raise self._refusal(model, uses)
        return runs

    def _refusal(self, model: ServedModel | None, uses: tuple[Use, ...]) -> BadRequest:
        """Names the models that could, of this server or else of those that have a short name."""
        able = [f"`{other.name}`" for other in self.models if any(other.can(use) for use in uses)]
        if model is None:
            message = f"No model of this server can {in_words(uses)}"
        elif able:
            message = f"The model `{model.name}` cannot {in_words(uses)}; {' and '.join(able)} can"
        else:
            message = f"The model `{model.name}` cannot {in_words(uses)}, and no model of this server can"
        if not able and (known := known_names(uses)):
            message += f"; {' or '.join(f'`headrace serve {name}`' for name in known)} starts one that can"
        return BadRequest(f"{message}.", parameter="model")
