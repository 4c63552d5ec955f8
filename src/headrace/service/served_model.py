"""One model of a server, from before it is loaded."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from headrace.config.sections import ServedModelConfig
from headrace.core.errors import EngineDead, HeadraceError, NotReady
from headrace.hub import ModelRole, Runner
from headrace.runtime.client import EngineState
from headrace.service.roles import GENERATE, Use, does, expected_role

if TYPE_CHECKING:
    from headrace.service.generation import Generator
    from headrace.service.pooler import Pooler

log = logging.getLogger(__name__)

RETRY_SECONDS = 5.0
"""After a load on first use has failed, requests in this time hear of that failure instead of trying again."""


class ServedModel:
    """Its names are known from the start; what runs it comes with `open`.

    `load`, which ends with a call of `open`, is for a lazy model: the first request that wants it calls it. Lives on
    one event loop.
    """

    def __init__(self, config: ServedModelConfig, load: Callable[[ServedModel], Awaitable[None]] | None = None) -> None:
        self.config = config
        self.names = config.names
        self.role = expected_role(config)
        self._load = load
        self._loading: asyncio.Task[None] | None = None
        self._failure: tuple[float, EngineDead] | None = None
        self._runs: Generator | Pooler | None = None

    @property
    def name(self) -> str:
        """The name in responses."""
        return self.names[0]

    @property
    def loaded(self) -> Generator | Pooler | None:
        """What runs it; None before it is loaded."""
        return self._runs

    @property
    def state(self) -> EngineState | None:
        """None: it is lazy, and not loaded yet."""
        if self._runs is not None:
            return self._runs.engine_state
        return None if self.config.lazy else EngineState.LOADING

    def can(self, use: Use) -> bool | None:
        """None: nobody knows yet, since its files have not been seen."""
        return None if self.role is None else does(self.role, use)

    async def ready(self) -> Generator | Pooler:
        """What runs it, loaded first if it is lazy: whoever asks meanwhile waits for the same load.

        Raises `NotReady` while one that is not lazy is being loaded, `EngineDead` if loading fails.
        """
        if self._runs is not None:
            return self._runs
        if not self.config.lazy or self._load is None:
            raise NotReady("The model is still being loaded.")
        if self._loading is None:
            if self._failure is not None and time.monotonic() < self._failure[0] + RETRY_SECONDS:
                raise self._failure[1]
            self._loading = asyncio.create_task(self._first_use(self._load), name=f"load-{self.name}")
        await asyncio.shield(self._loading)  # who stops waiting does not stop the others
        return await self.ready()

    def open(self, runs: Generator | Pooler) -> None:
        """The model is loaded: from now on `runs` answers for it."""
        self._runs = runs
        pooling = runs.info.pooling
        self.role = ModelRole(GENERATE) if pooling is None else ModelRole(Runner.POOLING, pooling.tasks)

    async def _first_use(self, load: Callable[[ServedModel], Awaitable[None]]) -> None:
        log.info("Loading %s: a request wants it.", self.name)
        began = time.monotonic()
        try:
            await load(self)
        except Exception as error:
            log.error("%s cannot be loaded: %s", self.name, error, exc_info=not isinstance(error, HeadraceError))
            failure = EngineDead(f"The model `{self.name}` cannot be loaded: {error}")
            self._failure = time.monotonic(), failure
            raise failure from error
        else:
            log.info("%s is loaded, in %.1f s.", self.name, time.monotonic() - began)
        finally:
            self._loading = None
