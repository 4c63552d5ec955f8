"""A child process with engines in it, started again when it dies."""

from __future__ import annotations

import asyncio
import itertools
import logging
import sys
import time
from collections.abc import Sequence

from headrace.config.engine import EngineConfig
from headrace.runtime.child_process import ChildProcess
from headrace.runtime.client import EngineState, ProgressListener, StatsListener
from headrace.runtime.hosted import HostedEngine
from headrace.runtime.messages import FromEngines, Hello, Load, LoadFailed, Loading, Ready, Stepped, ToEngines, Unload

log = logging.getLogger(__name__)

ENGINE_COMMAND = (sys.executable, "-m", "headrace.runtime.child")
"""What is run, with the descriptor of its socket as its last argument."""

MOST_RESTARTS = 5
"""Restarts in a row that may fail before the engines are given up."""

RESTART_DELAY = 0.5
"""Seconds before the second restart in a row; doubles with each further one."""

STEADY_SECONDS = 60.0
"""A process that served this long before it died starts a new count."""

STOP_SECONDS = 5.0
"""How long the child may take to end by itself."""


class EngineHost:
    """Engines that live in one child process: `engine` makes each, and its `start` loads it there.

    Must be used from one event loop. The child is there from the first `start` on, or from `launch`, which may be
    called ahead of it, so that the child starts while this process does other things. When it dies, it is replaced, and
    loads every engine again that had been loaded; one that was only being loaded is given up, since it may be what
    the process died of.
    """

    def __init__(self, *, command: Sequence[str] = ENGINE_COMMAND) -> None:
        self._command = command
        self._hello = Hello(logging.getLevelName(logging.getLogger().getEffectiveLevel()))
        self._numbers = itertools.count()
        self._engines: dict[int, HostedEngine] = {}
        self._told: set[int] = set()
        self._child: ChildProcess | None = None
        self._ready_at: float | None = None
        self._supervisor: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""
        return None if self._child is None else self._child.pid

    def engine(
        self,
        model_path: str,
        config: EngineConfig,
        on_stats: StatsListener | None = None,
        on_progress: ProgressListener | None = None,
        *,
        memory_share: float = 1.0,
    ) -> HostedEngine:
        """An engine that is not loaded yet. `model_path` is a checkpoint on this machine.

        `memory_share`: the part that it may take of the memory which one engine would take by default.
        """
        order = Load(next(self._numbers), model_path, config, memory_share)
        return HostedEngine(self, order, on_stats, on_progress)

    def launch(self) -> None:
        """Start the child process, if it is not running yet. Needs a running event loop. Raises `OSError`."""
        self._launched()

    async def stop(self, *, at_once: bool = False) -> None:
        """End all engines and the child; `at_once` does not let it finish its step."""
        # What a thread is loading is not worth waiting for.
        at_once |= any(engine.state is not EngineState.READY for engine in self._engines.values())
        engines, self._engines = self._engines, {}
        for engine in engines.values():
            engine.stopped()
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._end_child(patience=0 if at_once else STOP_SECONDS)

    # What follows is called by the engines.

    def load(self, engine: HostedEngine) -> None:
        self._engines[engine.number] = engine
        if self._child is not None:
            self._tell(engine)
        if self._supervisor is None or self._supervisor.done():
            self._supervisor = asyncio.create_task(self._supervise(), name="headrace-engine-supervisor")

    def release(self, engine: HostedEngine) -> None:
        if self._engines.pop(engine.number, None) is not None:
            self.send(Unload(engine.number))

    def send(self, message: ToEngines) -> None:
        if self._child is not None:
            self._child.send(message)

    def _launched(self) -> ChildProcess:
        if self._child is None:
            self._child = ChildProcess(self._command, self._hello)
            self._ready_at = None
            self._told.clear()
        return self._child

    def _tell(self, engine: HostedEngine) -> None:
        if engine.number not in self._told:
            self._told.add(engine.number)
            self.send(engine.order)

    async def _supervise(self) -> None:
        """Run one child after the other as long as there are engines for it."""
        deaths = 0
        while True:
            death = await self._run_child()
            steady = self._ready_at is not None and time.monotonic() - self._ready_at > STEADY_SECONDS
            deaths = 1 if steady else deaths + 1
            if any(engine.was_ready for engine in self._engines.values()):
                log.error("%s", death)
            hopeless = deaths > MOST_RESTARTS
            for engine in list(self._engines.values()):
                if engine.was_ready and not hopeless:
                    engine.lost(death)
                else:
                    del self._engines[engine.number]
                    engine.given_up(death)
            await self._end_child(patience=0)
            if not self._engines:
                return
            if deaths > 1:
                await asyncio.sleep(RESTART_DELAY * 2 ** (min(deaths, MOST_RESTARTS) - 2))
            log.warning("Starting the engine process again.")

    async def _run_child(self) -> str:
        """Serve with one child until it ends. Returns how it ended."""
        try:
            child = self._launched()
            for engine in self._engines.values():
                self._tell(engine)
            await child.listen(self._take)
        except Exception as error:  # whatever it is, requests must hear of it
            log.exception("The engine process cannot be used.")
            return f"The engine process cannot be used: {type(error).__name__}: {error}."
        doing = "while it loaded the model " if self._ready_at is None else ""
        return f"The engine process died {doing}({child.exit_text()})."

    def _take(self, message: FromEngines) -> None:
        engine = self._engines.get(message.engine)
        if engine is None:
            return  # released while this was on its way
        match message:
            case Stepped(output=output):
                engine.delivered(output)
            case Loading(done=done, total=total):
                engine.progressed(done, total)
            case Ready(info=info):
                engine.ready(info)
                if self._ready_at is None and all(other.state is EngineState.READY for other in self._engines.values()):
                    self._ready_at = time.monotonic()
            case LoadFailed(message=text):
                del self._engines[engine.number]
                engine.given_up(text)

    async def _end_child(self, patience: float) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end(patience)
