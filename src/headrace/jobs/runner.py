"""Runs jobs: takes those whose turn it is, hands them to the executor, records how they end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Concatenate, ParamSpec, TypeVar

from headrace.config.jobs import JobsConfig
from headrace.core.errors import EngineDead, HeadraceError
from headrace.jobs import moves, records
from headrace.jobs.clock import Clock
from headrace.jobs.errors import StoreUnavailable
from headrace.jobs.moves import Attempt
from headrace.jobs.output import Output
from headrace.jobs.store import Store
from headrace.jobs.transaction import Transaction
from headrace.jobs.types import SECOND, Execute, Job, JobStatus

P = ParamSpec("P")
T = TypeVar("T")

log = logging.getLogger(__name__)

INTERNAL = "Internal server error."

_DISPATCH_PAUSE = 1.0
"""Seconds until jobs are asked for again when that has failed."""

_FIRST_PAUSE = 0.1
_LONGEST_PAUSE = 5.0
"""Seconds between tries to write to a store that cannot be written: doubled each time."""


@dataclass(frozen=True, slots=True)
class _End:
    """How an attempt ended. `status` IN_QUEUE: without a result, because its worker was `lost` or stops."""

    status: JobStatus
    error: str | None = None
    lost: bool = False


class _Run:
    """One attempt on its way. It can be told to end at any time, and yet runs to the end of its own code."""

    def __init__(self) -> None:
        self.revoked = False
        self._told = False
        self._task: asyncio.Task[None] | None = None

    def begin(self) -> bool:
        """Called by the task of the attempt when it starts. False if it was told to end before."""
        self._task = asyncio.current_task()
        return not self._told

    def end(self) -> None:
        self._told = True
        if self._task is not None:  # a task that is cancelled before it starts would never start
            self._task.cancel()


class Runner:
    """The attempts that this server makes, `max_running_jobs` at most. Lives on the event loop.

    Jobs of each of `endpoints` are taken in their order; between endpoints the first to be asked changes.
    """

    def __init__(
        self, store: Store, config: JobsConfig, endpoints: Sequence[str], worker_id: str, clock: Clock
    ) -> None:
        self._store = store
        self._config = config
        self._endpoints = deque(endpoints)
        self._worker_id = worker_id
        self._clock = clock
        self._running: dict[Attempt, _Run] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._missing: set[Attempt] = set()
        self._wake = asyncio.Event()
        self._dispatching: asyncio.Task[None] | None = None

    def open(self, execute: Execute) -> None:
        """From now on jobs are run."""
        self._wake.set()
        self._dispatching = asyncio.create_task(self._dispatch(execute), name="jobs-dispatch")

    def wake(self) -> None:
        """A job may be waiting."""
        self._wake.set()

    def revoke(self, attempts: Iterable[Attempt]) -> None:
        """These attempts are over, whatever comes of them."""
        for attempt in attempts:
            if run := self._running.get(attempt):
                run.revoked = True
                run.end()

    def runs_any(self, ids: Collection[str]) -> bool:
        return any(attempt.job_id in ids for attempt in self._running)

    async def verify(self, ids: Collection[str]) -> None:
        """Another server has changed these jobs: end the attempts here that are over by that."""
        here = [attempt for attempt in self._running if attempt.job_id in ids]
        running = await self._store.read(records.attempts_among, [attempt.job_id for attempt in here])
        self.revoke(attempt for attempt in here if (attempt.job_id, attempt.number) not in running)

    async def reconcile(self) -> None:
        """Compare with what the store takes this server to be running: neither side may keep an attempt alone.

        An attempt that only the store knows was handed out by a commit that seemed to fail. It is given up when it is
        seen a second time: on the first it may be on its way to or from here.
        """
        before = set(self._running)
        stored = {Attempt(*key) for key in await self._store.read(records.attempts_of, self._worker_id)}
        self.revoke(before - stored)
        missing = stored - before - set(self._running)
        for attempt in missing & self._missing:
            await self._store.write(moves.abandon, attempt, self._clock(), lost=True)
        self._missing = missing - self._missing

    async def stop(self, grace: float) -> None:
        """Take no more jobs, give those that run `grace` seconds, then put the others back into the queue."""
        if self._dispatching is not None:
            self._dispatching.cancel()
            await asyncio.gather(self._dispatching, return_exceptions=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=grace)
        for run in self._running.values():
            run.end()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _dispatch(self, execute: Execute) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while (room := self._config.max_running_jobs - len(self._running)) > 0:
                    if not await self._start(execute, room):
                        break
            except StoreUnavailable:
                await self._pause()
            except Exception:
                log.exception("Jobs could not be started")
                await self._pause()

    async def _pause(self) -> None:
        await asyncio.sleep(_DISPATCH_PAUSE)
        self._wake.set()

    async def _start(self, execute: Execute, room: int) -> bool:
        """Start up to `room` jobs; false if none was waiting."""
        for _ in range(len(self._endpoints)):
            endpoint = self._endpoints[0]
            self._endpoints.rotate(-1)
            # Not to be interrupted: jobs that the store has handed out must be put back if nobody runs them.
            taking = asyncio.ensure_future(
                self._store.write(moves.start_next, endpoint, self._worker_id, room, self._clock())
            )
            try:
                started = await asyncio.shield(taking)
            except asyncio.CancelledError:
                for job, _input in await taking:
                    await self._store.write(moves.abandon, Attempt(job.id, job.attempt), self._clock(), lost=False)
                raise
            for job, job_input in started:
                self._launch(execute, job, job_input)
            if started:
                return True
        return False

    def _launch(self, execute: Execute, job: Job, job_input: Mapping[str, Any]) -> None:
        attempt, run = Attempt(job.id, job.attempt), _Run()
        self._running[attempt] = run
        task = asyncio.create_task(self._run(run, execute, attempt, job, job_input), name=f"job-{job.id}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run(self, run: _Run, execute: Execute, attempt: Attempt, job: Job, job_input: Mapping[str, Any]) -> None:
        async def append(first: int, bodies: Sequence[bytes]) -> bool:
            return await self._persist(moves.add_chunks, attempt, first, bodies)

        output = Output(append, self._config, lambda: self.revoke([attempt]))
        end = _End(JobStatus.IN_QUEUE)
        try:
            if run.begin():
                end = await self._execute(execute, job, job_input, output)
            if not run.revoked:
                await self._record(attempt, end, output)
        finally:
            del self._running[attempt]
            self._wake.set()

    async def _execute(self, execute: Execute, job: Job, job_input: Mapping[str, Any], output: Output) -> _End:
        limit = asyncio.timeout(job.policy.execution_timeout / SECOND)
        try:
            async with limit:
                await execute(job, job_input, output.emit)
        except asyncio.CancelledError:
            if _is_cancelled():
                return _End(JobStatus.IN_QUEUE)
            log.exception("Job %s: something that it waited for was cancelled", job.id)
            return _End(JobStatus.FAILED, INTERNAL)
        except Exception as problem:
            if limit.expired():
                return _End(JobStatus.TIMED_OUT, moves.EXECUTION_TIMEOUT)
            return _end_by(problem, job)
        return _End(JobStatus.COMPLETED)

    async def _record(self, attempt: Attempt, end: _End, output: Output) -> None:
        first, bodies = await output.close()
        if end.status is JobStatus.IN_QUEUE:
            await self._persist(moves.abandon, attempt, self._clock(), lost=end.lost)
            return
        now = self._clock()
        await self._persist(moves.end, attempt, end.status, now, error=end.error, first=first, bodies=bodies)

    async def _persist(
        self, operation: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """Write until it succeeds: what has been acknowledged is not given up because a disk is full."""
        pause = _FIRST_PAUSE
        while True:
            with contextlib.suppress(StoreUnavailable):
                return await self._store.write(operation, *args, **kwargs)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)


def _end_by(problem: Exception, job: Job) -> _End:
    """What an exception of the executor makes of its job."""
    if isinstance(problem, EngineDead):
        log.warning("Job %s: the engine was lost: %s", job.id, problem.message)
        return _End(JobStatus.IN_QUEUE, lost=True)
    if isinstance(problem, HeadraceError):
        log.info("Job %s failed: %s", job.id, problem.message)
        return _End(JobStatus.FAILED, problem.message)
    log.error("Job %s failed", job.id, exc_info=problem)
    return _End(JobStatus.FAILED, INTERNAL)


def _is_cancelled() -> bool:
    """Whether this task was told to end, as opposed to having met a future that was cancelled."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
