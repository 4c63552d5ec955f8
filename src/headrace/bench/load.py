"""A load on one server: requests sent when they are due, and what came of each."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import uvloop

from headrace.bench.endpoints import Ask
from headrace.bench.samples import Sample, read
from headrace.bench.wire import Connections, Recording, Server, clock
from headrace.client import ClientError, TimedOut

_KEPT_BYTES = 256 << 20
"""Recordings up to so many bytes together are read when the load is over; later ones as they end, for memory's sake."""

_OVERHEAD = 64
"""Bytes that a piece takes in memory beside its own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """Requests, each with the seconds after the beginning at which it is `due`: all at 0 in a closed loop.

    `concurrency`: at most so many at a time, one that is due waits for a place; None sets no limit. `timeout`: seconds
    for a whole answer.
    """

    asks: Sequence[Ask]
    due: Sequence[float]
    concurrency: int | None
    timeout: float


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What came of a load. `answered`: with the asks they answer. `cancelled` requests had been sent when it was
    interrupted. `lateness`: seconds between a request's being due and its being sent. `cpu_seconds`: processor time of
    this process meanwhile.
    """

    answered: list[tuple[Ask, Sample]] = field(default_factory=list)
    failures: list[ClientError] = field(default_factory=list)
    cancelled: int = 0
    lateness: list[float] = field(default_factory=list)
    most_running: int = 0
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    interrupted: bool = False


class LoadInterrupted(KeyboardInterrupt):
    """Ctrl-C during a load. `outcome` is what there is of it."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__()
        self.outcome = outcome


def run(server: Server, load: Load, on_end: Callable[[bool], None] = lambda succeeded: None) -> Outcome:
    """Put `load` on `server`; `on_end` is told of each request that ends whether its connection succeeded.

    Raises `LoadInterrupted`.
    """
    running = _RunningLoad(server, load, on_end)
    outcome = uvloop.run(running.run())
    if outcome.interrupted:
        raise LoadInterrupted(outcome)
    return outcome


class _RunningLoad:
    def __init__(self, server: Server, load: Load, on_end: Callable[[bool], None]) -> None:
        self._load = load
        self._on_end = on_end
        self._server = server
        self._connections = Connections(server)
        self._recorded: list[tuple[Ask, Recording]] = []
        self._kept_bytes = 0
        self._running = 0
        self._outcome = Outcome()

    async def run(self) -> Outcome:
        outcome = self._outcome
        began, began_cpu = clock(), time.process_time()
        with contextlib.suppress(asyncio.CancelledError):
            await self._send_all(began)
        outcome.seconds, outcome.cpu_seconds = clock() - began, time.process_time() - began_cpu
        self._connections.close()
        for ask, recording in self._recorded:
            self._read(ask, recording)
        # This task is all that the loop runs for: only the runner's handler of SIGINT cancels it.
        task = asyncio.current_task()
        outcome.interrupted = task is not None and task.cancelling() > 0
        return outcome

    async def _send_all(self, began: float) -> None:
        load = self._load
        places = asyncio.Semaphore(load.concurrency or len(load.asks))
        async with asyncio.TaskGroup() as tasks:
            for ask, due in zip(load.asks, load.due, strict=True):
                while (wait := began + due - clock()) > 0:
                    await asyncio.sleep(wait)
                await places.acquire()
                self._outcome.lateness.append(clock() - began - due)
                tasks.create_task(self._answer(ask, places))

    async def _answer(self, ask: Ask, places: asyncio.Semaphore) -> None:
        outcome = self._outcome
        self._running += 1
        outcome.most_running = max(outcome.most_running, self._running)
        succeeded = False
        try:
            async with asyncio.timeout(self._load.timeout):
                recording = await self._connections.post(self._server.bytes_of(ask.request))
            succeeded = recording.status == 200
        except asyncio.CancelledError:
            outcome.cancelled += 1
            raise
        except TimeoutError:
            outcome.failures.append(TimedOut(f"No whole answer within {self._load.timeout:g} s."))
        except ClientError as error:
            outcome.failures.append(error)
        else:
            self._keep(ask, recording)
        finally:
            self._running -= 1
            places.release()
        self._on_end(succeeded)

    def _keep(self, ask: Ask, recording: Recording) -> None:
        if self._kept_bytes > _KEPT_BYTES:
            self._read(ask, recording)
            return
        self._recorded.append((ask, recording))
        self._kept_bytes += sum(map(len, recording.pieces)) + _OVERHEAD * len(recording.pieces)

    def _read(self, ask: Ask, recording: Recording) -> None:
        try:
            self._outcome.answered.append((ask, read(recording, ask)))
        except ClientError as error:
            self._outcome.failures.append(error)
