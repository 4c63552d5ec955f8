"""An engine in a child process, started again when it dies."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path

import zmq
import zmq.asyncio

from headrace.config.engine import EngineConfig
from headrace.core.errors import EngineDead, NotReady, StartupError, Unavailable
from headrace.core.request import EngineInfo, Request, StepStats
from headrace.runtime.client import EngineState, ProgressListener, RequestStream, StatsListener
from headrace.runtime.environment import engine_environment
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

MOST_RESTARTS = 5
"""Restarts in a row that may fail before the engine is given up."""

RESTART_DELAY = 0.5
"""Seconds before the second restart in a row; doubles with each further one."""

STEADY_SECONDS = 60.0
"""An engine that ran this long before it died starts a new count."""

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
    ) -> None:
        self._load = Load(model_path, config, logging.getLevelName(logging.getLogger().getEffectiveLevel()))
        self._on_stats = on_stats
        self._on_progress = on_progress
        self._streams = Streams(lambda request_id, choice: self._send(Abort(request_id, choice)))
        self._info: EngineInfo | None = None
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
        return None if self._child is None else self._child.process.pid

    def launch(self) -> None:
        """Start the child process, if it is not running yet. Needs a running event loop."""
        if self._child is None:
            self._child = _Child(self._load)

    async def start(self) -> EngineInfo:
        self.launch()
        loaded: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._supervisor = asyncio.create_task(self._supervise(loaded), name="headrace-engine-supervisor")
        return await loaded

    def submit(self, request: Request) -> RequestStream:
        if self.state is not EngineState.READY:
            raise self._unavailable()
        stream = self._streams.open(request)
        self._send(Submit(request))
        return stream

    async def stop(self) -> None:
        self.state = EngineState.STOPPED
        self._streams.fail_all(EngineDead("The engine was stopped."))
        if self._supervisor is not None:
            self._supervisor.cancel()
            await asyncio.gather(self._supervisor, return_exceptions=True)
        if self._child is not None:
            child, self._child = self._child, None
            await child.stop()

    def _unavailable(self) -> Unavailable:
        match self.state:
            case EngineState.LOADING:
                return NotReady("The model is still being loaded.")
            case EngineState.RESTARTING:
                return NotReady("The engine has died and is being started again.")
            case _:
                return EngineDead(f"The engine is {self.state}.")

    def _report(self, stats: StepStats) -> None:
        if self._on_stats is not None:
            self._on_stats(stats)

    def _send(self, message: ToEngine) -> None:
        if self._child is not None:
            self._child.send(message)

    async def _supervise(self, loaded: asyncio.Future[EngineInfo]) -> None:
        """Run one child after the other until the engine is stopped or given up. Resolves `loaded` once."""
        failures = 0
        while True:
            began = time.monotonic()
            try:
                await self._serve(loaded)
            except StartupError as error:
                death = error.message
                failures = MOST_RESTARTS
            else:
                death = f"The engine process died ({self._child.exit_text()})."
                failures = 0 if time.monotonic() - began > STEADY_SECONDS else failures + 1
            self._child.close()
            self._child = None
            if not loaded.done():
                self.state = EngineState.DEAD
                loaded.set_exception(StartupError(death))
                return
            log.error("%s", death)
            self.state = EngineState.DEAD if failures >= MOST_RESTARTS else EngineState.RESTARTING
            self._streams.fail_all(EngineDead(f"{death} Requests that were running are lost; send them again."))
            self._report(StepStats())
            if self.state is EngineState.DEAD:
                log.error("The engine is not started again after %d failures in a row.", failures)
                return
            if failures > 1:
                await asyncio.sleep(RESTART_DELAY * 2 ** (failures - 2))
            log.warning("Starting the engine again.")
            self.launch()

    async def _serve(self, loaded: asyncio.Future[EngineInfo]) -> None:
        """Deliver what the current child says until it ends. Raises `StartupError` if its model cannot be loaded."""
        child = self._child
        async for message in child.messages():
            match message:
                case Stepped(output=output):
                    self._streams.deliver(output)
                    self._report(output.stats)
                case Loading(done=done, total=total):
                    if self._on_progress is not None:
                        self._on_progress(done, total)
                case Ready(info=info):
                    self._info = info
                    self.state = EngineState.READY
                    if loaded.done():
                        log.info("The engine is back.")
                    else:
                        loaded.set_result(info)
                    self._report(StepStats())
                case LoadFailed(message=text):
                    raise StartupError(text)


class _Child:
    """One engine process and the socket to it."""

    def __init__(self, load: Load) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="headrace-")  # mode 0700: nobody else may connect
        address = f"ipc://{Path(self._folder.name) / 'engine'}"
        self._socket = zmq.asyncio.Socket(zmq.Context.instance(), zmq.PAIR)
        self._socket.set(zmq.LINGER, 0)
        self._socket.set(zmq.SNDHWM, 0)
        self._socket.set(zmq.RCVHWM, 0)
        self._socket.bind(address)
        # Its standard input stays open as long as this process lives: its end tells the child to end as well.
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace.runtime.child", address], stdin=subprocess.PIPE, env=engine_environment()
        )
        self.send(load)

    def send(self, message: ToEngine) -> None:
        """Queue a message; the socket has no limit, so this neither waits nor fails."""
        self._socket.send(encode(message))

    async def messages(self) -> AsyncIterator[FromEngine]:
        """What the child says, until it ends."""
        ended = asyncio.create_task(self._ended(), name="headrace-engine-exit")
        received: asyncio.Future[bytes] = self._socket.recv()
        try:
            while True:
                if not received.done():
                    await asyncio.wait((received, ended), return_when=asyncio.FIRST_COMPLETED)
                if not received.done():
                    # The last words of a child that has just ended may still be on their way through the socket.
                    await asyncio.wait((received,), timeout=LAST_WORDS_SECONDS)
                if not received.done():
                    return
                yield decode_from_engine(received.result())
                received = self._socket.recv()
        finally:
            received.cancel()
            ended.cancel()

    async def _ended(self) -> None:
        """Returns when the process has ended."""
        pidfd = os.pidfd_open(self.process.pid)
        ended = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_reader(pidfd, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    def exit_text(self) -> str:
        code = self.process.wait()
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def stop(self) -> None:
        """Ask the child to end, and end it if it does not."""
        self.send(Stop())
        try:
            async with asyncio.timeout(STOP_SECONDS):
                await self._ended()
        except TimeoutError:
            self.process.kill()
        self.process.wait()
        self.close()

    def close(self) -> None:
        self.process.stdin.close()
        self._socket.close()
        self._folder.cleanup()
