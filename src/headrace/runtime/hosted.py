"""One engine of an engine process, as its callers see it."""

from __future__ import annotations

import asyncio
import logging
from typing import Protocol

from headrace.core.errors import EngineDead, NotReady, StartupError, Unavailable
from headrace.core.pooling import PoolingOutput, PoolingRequest
from headrace.core.request import EngineInfo, Request, StepOutput, StepStats
from headrace.core.vocabulary import Vocabulary
from headrace.runtime.client import EngineState, ProgressListener, RequestStream, StatsListener
from headrace.runtime.messages import Abort, Learn, Load, Submit, SubmitPooling, ToEngines
from headrace.runtime.streams import Streams

log = logging.getLogger(__name__)


class Host(Protocol):
    """What an engine needs of the process it is in."""

    def load(self, engine: HostedEngine) -> None:
        """Have the engine loaded: it is told what came of it, now and whenever the process is started again."""
        ...

    def release(self, engine: HostedEngine) -> None:
        """Have the engine freed; it hears nothing more."""
        ...

    def send(self, message: ToEngines) -> None: ...


class HostedEngine:
    """`EngineClient` for one engine of a host, which makes it. Must be used from one event loop.

    One whose model could not be loaded stays dead: make another.
    """

    def __init__(
        self, host: Host, order: Load, on_stats: StatsListener | None, on_progress: ProgressListener | None
    ) -> None:
        self.order = order
        self.number = order.engine
        self.state = EngineState.LOADING
        self._host = host
        self._on_stats = on_stats
        self._on_progress = on_progress
        self._streams = Streams(lambda request_id, choice: host.send(Abort(self.number, request_id, choice)))
        self._vocabulary: Vocabulary | None = None
        self._loaded: asyncio.Future[EngineInfo] | None = None
        self._info: EngineInfo | None = None
        self._death = ""

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            raise NotReady("The model is still being loaded.")
        return self._info

    @property
    def was_ready(self) -> bool:
        """Whether the model could be loaded once, so that it is worth loading again."""
        return self._info is not None

    async def start(self) -> EngineInfo:
        self._loaded = asyncio.get_running_loop().create_future()
        self._host.load(self)
        return await self._loaded

    def submit(self, request: Request) -> RequestStream:
        self._check_ready()
        stream = self._streams.open(request)
        self._host.send(Submit(self.number, request))
        return stream

    def pool(self, request: PoolingRequest) -> asyncio.Future[PoolingOutput]:
        self._check_ready()
        output = self._streams.open_pooling(request)
        self._host.send(SubmitPooling(self.number, request))
        return output

    def learn(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        if self.state is EngineState.READY:
            self._host.send(Learn(self.number, vocabulary))

    async def stop(self) -> None:
        self._host.release(self)
        self.stopped()

    # What follows is called by the host.

    def delivered(self, output: StepOutput) -> None:
        self._streams.deliver(output)
        self._report(output.stats)

    def progressed(self, done: int, total: int) -> None:
        if self._on_progress is not None:
            self._on_progress(done, total)

    def ready(self, info: EngineInfo) -> None:
        """The model is loaded: for the first time, or again."""
        if self.was_ready:
            log.info("The engine is back.")
        self._info = info
        self.state = EngineState.READY
        if self._vocabulary is not None:  # one that was started again knows nothing of it yet
            self._host.send(Learn(self.number, self._vocabulary))
        if self._loaded is not None and not self._loaded.done():
            self._loaded.set_result(info)
        self._report(StepStats())

    def lost(self, death: str) -> None:
        """The process has died, and is started again."""
        message = f"{death} Requests that were running are lost; send them again."
        self._end_requests(EngineState.RESTARTING, death, message)

    def given_up(self, reason: str) -> None:
        """The model cannot be loaded, or is not loaded again."""
        if self.was_ready:
            log.error("The engine is not started again. %s", reason)
        self._end_requests(EngineState.DEAD, reason, reason)

    def stopped(self) -> None:
        death = "The engine was stopped while it was loading."
        self._end_requests(EngineState.STOPPED, death, "The engine was stopped.")

    def _end_requests(self, state: EngineState, death: str, message: str) -> None:
        self.state = state
        self._death = death
        self._streams.fail_all(EngineDead(message))
        if state is not EngineState.RESTARTING and self._loaded is not None and not self._loaded.done():
            self._loaded.set_exception(StartupError(death))
        self._report(StepStats())

    def _report(self, stats: StepStats) -> None:
        if self._on_stats is not None:
            self._on_stats(stats)

    def _check_ready(self) -> None:
        if self.state is not EngineState.READY:
            raise self._unavailable()

    def _unavailable(self) -> Unavailable:
        match self.state:
            case EngineState.LOADING:
                return NotReady("The model is still being loaded.")
            case EngineState.RESTARTING:
                return NotReady("The engine has died and is being started again.")
            case EngineState.DEAD:
                return EngineDead(f"The engine is not started again. {self._death}")
            case _:
                return EngineDead(f"The engine is {self.state}.")
