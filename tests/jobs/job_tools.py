"""What the tests of the job queue share: stores and services that are closed again, and executors that obey."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from headrace.config.jobs import JobsConfig
from headrace.jobs import Emit, Job, JobQueue, JobService, JobStatus, Scope, Submission, moves, submitting, sweeping
from headrace.jobs.moves import Attempt
from headrace.jobs.store import Store

SCOPE = Scope("default")
NO_LIMITS = (1 << 40, 1 << 50)
MINUTE = 60_000
RETENTION = 30 * MINUTE


@contextlib.asynccontextmanager
async def open_store(config: JobsConfig) -> AsyncIterator[Store]:
    store = Store(config)
    await store.open(lambda _: None, lambda _: None)
    try:
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def serving(
    config: JobsConfig, execute: Any = None, *, grace: float = 0.0, **options: Any
) -> AsyncIterator[JobQueue]:
    """A running service's queue. Without `execute` nothing is run."""
    service = JobService(config, **{"endpoints": ["default"], "render_webhook": render, **options})
    await service.start()
    try:
        if execute is not None:
            service.open(execute)
        yield service.queue
    finally:
        await service.stop(grace)


async def put(store: Store, now: int, scope: Scope = SCOPE, limits: tuple[int, int] = NO_LIMITS, **fields: Any) -> Job:
    """Submit at the time `now`, without the checks of what callers may ask for."""
    new = submitting.NewJob(scope, Submission(**{"input": {"n": 1}, **fields}), RETENTION, limits)
    return await store.write(new.insert, now)


async def take(store: Store, now: int, limit: int = 100, worker: str = "w-1", endpoint: str = "default") -> list[Job]:
    await store.write(sweeping.renew_lease, worker, now + MINUTE)
    return [job for job, _ in await store.write(moves.start_next, endpoint, worker, limit, now)]


async def finish(
    store: Store,
    job: Job,
    now: int,
    status: JobStatus = JobStatus.COMPLETED,
    *,
    error: str | None = None,
    first: int = 0,
    bodies: tuple[bytes, ...] = (),
) -> bool:
    return await store.write(moves.end, attempt_of(job), status, now, error=error, first=first, bodies=bodies)


def attempt_of(job: Job) -> Attempt:
    return Attempt(job.id, job.attempt)


def render(job: Job, job_input: Mapping[str, Any]) -> bytes:
    output = None if job.output is None else [json.loads(chunk) for chunk in job.output]
    return json.dumps({"id": job.id, "status": job.status, "output": output, "input": job_input}).encode()


async def count_up(job: Job, job_input: Mapping[str, Any], emit: Emit) -> None:
    """Emits 0 … n-1."""
    for number in range(job_input["n"]):
        await emit(number)


class Gate:
    """An executor that waits: `started` says that a job runs, `open` lets all of them emit `payload` and finish."""

    def __init__(self) -> None:
        self.started = asyncio.Event()
        self.open = asyncio.Event()
        self.running = 0
        self.cancelled: list[str] = []
        self.payload: Any = "done"

    async def __call__(self, job: Job, job_input: Mapping[str, Any], emit: Emit) -> None:
        self.started.set()
        self.running += 1
        try:
            await self.open.wait()
        except asyncio.CancelledError:
            self.cancelled.append(job.id)
            raise
        finally:
            self.running -= 1
        await emit(self.payload)


async def until(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    """For what happens without an event of its own."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)
