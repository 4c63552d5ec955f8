"""An engine in a thread of this process: for the Python API and for tests."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import queue
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from headrace.config.engine import EngineConfig
from headrace.core.errors import EngineDead, NotReady
from headrace.core.pooling import PoolingOutput, PoolingRequest
from headrace.core.request import EngineInfo, Request, StepOutput
from headrace.core.vocabulary import Vocabulary
from headrace.runtime.client import EngineState, ProgressListener, RequestStream, StatsListener
from headrace.runtime.environment import prepare_this_process
from headrace.runtime.messages import Abort, Learn, Stop, Submit, SubmitPooling
from headrace.runtime.streams import Streams
from headrace.runtime.turns import Command, EngineTurns

if TYPE_CHECKING:
    from headrace.engine import AnyEngine

log = logging.getLogger(__name__)

_NUMBER = 0
"""Of the only engine in its thread."""


class _NobodyListens(BaseException):
    """The event loop is closed: the thread may end. Not an `Exception`, since nothing has failed."""


class LocalEngine:
    """`EngineClient` over a thread. Must be used from one event loop. `model_path` is a checkpoint on this machine."""

    def __init__(
        self,
        model_path: str,
        config: EngineConfig,
        on_stats: StatsListener | None = None,
        on_progress: ProgressListener | None = None,
    ) -> None:
        self._model_path = model_path
        self._config = config
        self._on_stats = on_stats
        self._on_progress = on_progress
        self._commands: queue.SimpleQueue[Command | Stop] = queue.SimpleQueue()
        self._streams = Streams(lambda request_id, choice: self._commands.put(Abort(_NUMBER, request_id, choice)))
        self._info: EngineInfo | None = None
        self._thread: threading.Thread | None = None
        self._ended = asyncio.Event()
        self.state = EngineState.LOADING

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            raise NotReady("The model is still being loaded.")
        return self._info

    async def start(self) -> EngineInfo:
        loop = asyncio.get_running_loop()
        loaded: asyncio.Future[EngineInfo] = loop.create_future()
        self._thread = threading.Thread(target=self._run, args=(loop, loaded), name="headrace-engine", daemon=True)
        self._thread.start()
        try:
            self._info = await loaded
        except BaseException:
            self.state = EngineState.DEAD
            raise
        if self.state is EngineState.LOADING:
            self.state = EngineState.READY
        return self._info

    def submit(self, request: Request) -> RequestStream:
        self._check_ready()
        stream = self._streams.open(request)
        self._commands.put(Submit(_NUMBER, request))
        return stream

    def pool(self, request: PoolingRequest) -> asyncio.Future[PoolingOutput]:
        self._check_ready()
        pooled = self._streams.open_pooling(request)
        self._commands.put(SubmitPooling(_NUMBER, request))
        return pooled

    def learn(self, vocabulary: Vocabulary) -> None:
        self._commands.put(Learn(_NUMBER, vocabulary))

    async def stop(self) -> None:
        if self._thread is None:
            return
        self.state = EngineState.STOPPED
        self._commands.put(Stop())
        await self._ended.wait()
        self._thread.join()
        self._streams.fail_all(EngineDead("The engine was stopped."))

    def _check_ready(self) -> None:
        if self.state is EngineState.LOADING:
            raise NotReady("The model is still being loaded.")
        if self.state is not EngineState.READY:
            raise EngineDead(f"The engine is {self.state}.")

    def _run(self, loop: asyncio.AbstractEventLoop, loaded: asyncio.Future[EngineInfo]) -> None:
        def post(callback: Callable[..., None], *args: Any) -> None:
            """Have it called on the event loop. Raises `_NobodyListens` if that is closed."""
            try:
                loop.call_soon_threadsafe(callback, *args)
            except RuntimeError:
                raise _NobodyListens from None

        with contextlib.suppress(_NobodyListens):
            try:
                self._load_and_run(post, loaded)
            finally:
                post(self._ended.set)

    def _load_and_run(self, post: Callable[..., None], loaded: asyncio.Future[EngineInfo]) -> None:
        def loaded_or_not(result: EngineInfo | Exception) -> None:
            if loaded.done():
                return  # whoever wanted it was cancelled
            if isinstance(result, Exception):
                loaded.set_exception(result)
            else:
                loaded.set_result(result)

        def progress(done: int, total: int) -> None:
            if self._on_progress is not None:
                post(self._on_progress, done, total)

        try:
            prepare_this_process()
            from headrace.engine import load_engine

            engine = load_engine(self._model_path, self._config, progress)
        except Exception as error:
            post(loaded_or_not, error)
            return
        post(loaded_or_not, engine.info)
        try:
            self._serve(engine, lambda _, output: post(self._deliver, output))
        except Exception as error:
            log.exception("The engine has died.")
            post(self._die, f"The engine has died: {error}")

    def _serve(self, engine: AnyEngine, send: Callable[[int, StepOutput], None]) -> None:
        turns = EngineTurns(send)
        turns.add(_NUMBER, engine)
        while True:
            for command in self._receive(wait=not turns.has_work):
                if isinstance(command, Stop):
                    return
                turns.take(command)
            turns.step()

    def _receive(self, wait: bool) -> list[Command | Stop]:
        commands = [self._commands.get()] if wait else []
        while not self._commands.empty():
            commands.append(self._commands.get())
        return commands

    def _deliver(self, output: StepOutput) -> None:
        self._streams.deliver(output)
        if self._on_stats is not None:
            self._on_stats(output.stats)

    def _die(self, message: str) -> None:
        self.state = EngineState.DEAD
        self._streams.fail_all(EngineDead(message))
