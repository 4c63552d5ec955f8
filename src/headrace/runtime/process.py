"""An engine in a child process, started again when it dies."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial

from headrace.config.engine import EngineConfig
from headrace.core.errors import EngineDead, NotReady, StartupError, Unavailable
from headrace.core.request import EngineInfo, Request, StepStats
from headrace.runtime.client import EngineState, ProgressListener, RequestStream, StatsListener
from headrace.runtime.environment import engine_environment
from headrace.runtime.frames import Frames, frame
from headrace.runtime.messages import (
    Abort,
    FromEngine,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Stepped,
    Stop,
    Submit,
    ToEngine,
    decode_from_engine,
    encode,
)
from headrace.runtime.streams import Streams

log = logging.getLogger(__name__)

ENGINE_COMMAND = (sys.executable, "-m", "headrace.runtime.child")
"""What is run, with the descriptor of its socket as its last argument."""

MOST_RESTARTS = 5
"""Restarts in a row that may fail before the engine is given up."""

RESTART_DELAY = 0.5
"""Seconds before the second restart in a row; doubles with each further one."""

STEADY_SECONDS = 60.0
"""An engine that served this long before it died starts a new count."""

STOP_SECONDS = 5.0
"""How long the child may take to end by itself."""

LAST_WORDS_SECONDS = 0.2
"""How long a message may still arrive after the child has ended."""


class ProcessEngine:
    """`EngineClient` over a child process. Must be used from one event loop.

    `model_path` is a checkpoint on this machine. `launch()` may be called ahead of `start()`, so that the child
    imports and loads while this process does other things.
    """

    def __init__(
        self,
        model_path: str,
        config: EngineConfig,
        on_stats: StatsListener | None = None,
        on_progress: ProgressListener | None = None,
        *,
        command: Sequence[str] = ENGINE_COMMAND,
    ) -> None:
        self._load = Load(model_path, config, logging.getLevelName(logging.getLogger().getEffectiveLevel()))
        self._on_stats = on_stats
        self._on_progress = on_progress
        self._command = command
        self._streams = Streams(lambda request_id, choice: self._send(Abort(request_id, choice)))
        self._info: EngineInfo | None = None
        self._ready_at: float | None = None
        self._death = ""
        self._child: _Child | None = None
        self._supervisor: asyncio.Task[None] | None = None
        self.state = EngineState.LOADING

    @property
    def info(self) -> EngineInfo:
        if self._info is None:
            raise NotReady("The model is still being loaded.")
        return self._info

    @property
    def pid(self) -> int | None:
        """Process id of the running child."""
        return None if self._child is None else self._child.pid

    def launch(self) -> None:
        """Start the child process, if it is not running yet. Needs a running event loop."""
        self._launched()

    async def start(self) -> EngineInfo:
        loaded: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(loaded), name="headrace-engine-supervisor")
        return await loaded

    def submit(self, request: Request) -> RequestStream:
        if self.state is not EngineState.READY:
            raise self._unavailable()
        stream = self._streams.open(request)
        self._send(Submit(request))
        return stream

    async def stop(self, *, at_once: bool = False) -> None:
        """As `EngineClient.stop`; `at_once` does not let the child finish its step."""
        # While it loads it reads no messages, and there is nothing to lose.
        at_once |= self.state in (EngineState.LOADING, EngineState.RESTARTING)
        self.state = EngineState.STOPPED
        self._streams.fail_all(EngineDead("The engine was stopped."))
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        await self._end_child(patience=0 if at_once else STOP_SECONDS)

    def _launched(self) -> _Child:
        if self._child is None:
            self._ready_at = None
            self._child = _Child(self._command, self._load)
        return self._child

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

    def _report(self, stats: StepStats) -> None:
        if self._on_stats is not None:
            self._on_stats(stats)

    def _send(self, message: ToEngine) -> None:
        if self._child is not None:
            self._child.send(message)

    async def _supervise(self, loaded: asyncio.Future[EngineInfo]) -> None:
        """Run one child after the other until the engine is stopped or given up. Resolves `loaded` in any case."""
        deaths = 0
        try:
            while True:
                self._death, hopeless = await self._run_child(loaded)
                if self._info is None:
                    self.state = EngineState.DEAD
                    await self._end_child(patience=0)
                    return
                steady = self._ready_at is not None and time.monotonic() - self._ready_at > STEADY_SECONDS
                deaths = 1 if steady else deaths + 1
                hopeless |= deaths > MOST_RESTARTS
                log.error("%s", self._death)
                self.state = EngineState.DEAD if hopeless else EngineState.RESTARTING
                lost = EngineDead(f"{self._death} Requests that were running are lost; send them again.")
                self._streams.fail_all(lost)
                self._report(StepStats())
                await self._end_child(patience=0)
                if hopeless:
                    log.error("The engine is not started again after %d deaths in a row.", deaths)
                    return
                if deaths > 1:
                    await asyncio.sleep(RESTART_DELAY * 2 ** (deaths - 2))
                log.warning("Starting the engine again.")
        finally:
            if not loaded.done():
                loaded.set_exception(StartupError(self._death or "The engine was stopped while it was loading."))

    async def _run_child(self, loaded: asyncio.Future[EngineInfo]) -> tuple[str, bool]:
        """Serve with one child until it ends. Returns how it ended, and whether another one would end the same way."""
        try:
            return await self._serve(self._launched(), loaded), False
        except StartupError as error:
            return error.message, True
        except Exception as error:  # whatever it is, requests must hear of it
            log.exception("The engine process cannot be used.")
            return f"The engine process cannot be used: {type(error).__name__}: {error}.", False

    async def _serve(self, child: _Child, loaded: asyncio.Future[EngineInfo]) -> str:
        """Deliver what the child says until it ends, and say how. Raises `StartupError` if it cannot load the model."""
        await child.listen(partial(self._take, loaded))
        doing = "while it loaded the model " if self._ready_at is None else ""
        return f"The engine process died {doing}({child.exit_text()})."

    def _take(self, loaded: asyncio.Future[EngineInfo], message: FromEngine) -> None:
        match message:
            case Stepped(output=output):
                self._streams.deliver(output)
                self._report(output.stats)
            case Loading(done=done, total=total):
                if self._on_progress is not None:
                    self._on_progress(done, total)
            case Ready(info=info):
                if self._info is not None:
                    log.info("The engine is back.")
                self._info = info
                self._ready_at = time.monotonic()
                self.state = EngineState.READY
                if not loaded.done():
                    loaded.set_result(info)
                self._report(StepStats())
            case LoadFailed(message=text):
                raise StartupError(text)

    async def _end_child(self, patience: float) -> None:
        child, self._child = self._child, None
        if child is not None:
            await child.end(patience)


class _Child:
    """One engine process and the socket to it."""

    def __init__(self, command: Sequence[str], load: Load) -> None:
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                # Its standard input stays open as long as this process lives: its end tells the child to end as well.
                # In a process group of its own, a Ctrl-C does not reach it before it can ignore it.
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    env=engine_environment(),
                    process_group=0,
                )
        except BaseException:
            self._socket.close()
            raise
        self.pid = self._process.pid
        # A thread works on every system and event loop, and reaps the child whatever becomes of the loop.
        threading.Thread(target=self._reap, args=(loop,), name="headrace-engine-exit", daemon=True).start()
        with contextlib.suppress(ConnectionError):  # it has died already, which is heard of in its own way
            self._socket.sendall(frame(encode(load)))

    async def listen(self, take: Callable[[FromEngine], None]) -> None:
        """Hand what the child says to `take` as it comes, until it ends. Raises what `take` raises."""
        self._transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(take), sock=self._socket
        )
        closed = connection.closed
        await asyncio.wait((closed, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not closed.done():  # its last words may still be on their way
            await asyncio.wait((closed,), timeout=LAST_WORDS_SECONDS)
        if closed.done():
            closed.result()
        # One that has closed its socket is about to end.
        await asyncio.wait((self._ended,), timeout=STOP_SECONDS)
        await self.end(patience=0)

    def send(self, message: ToEngine) -> None:
        """Queue a message, without limit: this neither waits nor fails."""
        if self._transport is not None:
            self._transport.write(frame(encode(message)))

    def exit_text(self) -> str:
        """How the child ended; it must have."""
        code = self._ended.result()
        if code == -signal.SIGKILL:
            return "signal 9: somebody killed it, or memory ran out"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def end(self, patience: float) -> None:
        """Ask the child to end, kill it if it has not within `patience` seconds, and free what belonged to it."""
        try:
            if patience > 0:
                self.send(Stop())
                await asyncio.wait((self._ended,), timeout=patience)
            self._process.kill()  # does nothing to one that has ended
            await asyncio.wait((self._ended,))
        finally:
            self._process.kill()
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._transport is not None:
                self._transport.abort()
            else:
                self._socket.close()

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()

        def tell() -> None:
            if not self._ended.done():
                self._ended.set_result(code)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left who wants to know
            loop.call_soon_threadsafe(tell)


class _Connection(asyncio.Protocol):
    """The parent's end of the socket. A plain stream: ZeroMQ's own thread and asyncio's futures cost three times as
    much CPU per message (`benchmarks/api_path.py`), and the kernels want those cores.

    `closed` is done once the child has closed its end, or failed with what `take` raised.
    """

    def __init__(self, take: Callable[[FromEngine], None]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._take = take
        self._frames = Frames()

    def data_received(self, data: bytes) -> None:
        if self.closed.done():
            return
        try:
            for message in self._frames.feed(data):
                self._take(decode_from_engine(message))
        except Exception as error:
            self.closed.set_exception(error)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
