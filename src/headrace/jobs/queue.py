"""What the routes ask of jobs. Every answer is read from, and every change is committed to, the store first."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence

from headrace.config.jobs import JobsConfig
from headrace.core.errors import BadRequest
from headrace.jobs import moves, records
from headrace.jobs.addresses import check_webhook
from headrace.jobs.clock import Clock
from headrace.jobs.errors import QueueStopping
from headrace.jobs.moves import Attempt
from headrace.jobs.news import News
from headrace.jobs.runner import Runner
from headrace.jobs.store import Store
from headrace.jobs.submitting import NewJob
from headrace.jobs.types import SECOND, Job, JobCounts, JobStatus, Scope, StreamPage, Submission

_PURGE_SLICE = 500
"""Jobs cancelled in one operation, so that a purge of a long queue holds nobody up."""


class JobQueue:
    """The jobs of one store. A job of another scope does not exist: `JobNotFound`, as for one whose result has expired.

    Everything may raise `StoreUnavailable` (503), and then has changed nothing. Lives on the event loop.
    """

    def __init__(self, store: Store, config: JobsConfig, runner: Runner, news: News, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._runner = runner
        self._news = news
        self._clock = clock
        self._reading: set[str] = set()
        self._limits = (config.max_queued_jobs, config.max_queued_job_bytes)
        self.stopping = False
        """The server is being stopped: nothing is taken in any more, and nobody is kept waiting."""

    async def submit(self, scope: Scope, submission: Submission) -> Job:
        """The job, on stable storage. With the idempotency key of an earlier submission, that job as it is now.

        Raises `BadRequest` (policy, webhook), `QueueFull` (429), `IdempotencyConflict` (409), `QueueStopping` (503).
        """
        submission.policy.check()
        if submission.webhook is not None:
            check_webhook(submission.webhook, allow_private=self._config.job_webhook_private)
        self._refuse_if_stopping()
        if submission.retention is not None:
            retention = submission.retention
        else:
            seconds = self._config.job_sync_retention if submission.sync else self._config.job_retention
            retention = round(seconds * SECOND)
        new = NewJob(scope, submission, retention, self._limits)
        return await self._store.write(new.insert, self._clock())

    async def get(self, scope: Scope, job_id: str) -> Job:
        """The job now, with its output if it is COMPLETED."""
        return await self._store.read(records.find_with_output, scope, job_id, self._clock())

    async def list(self, scope: Scope, *, status: JobStatus | None = None, limit: int = 100) -> Sequence[Job]:
        """Jobs without their outputs, the newest first."""
        return await self._store.read(records.find_all, scope, status, limit, self._clock())

    async def wait(self, scope: Scope, job_id: str, timeout: float) -> Job:
        """The job when it has ended, or as it is after `timeout` seconds or when the server stops."""
        deadline = asyncio.get_running_loop().time() + timeout
        with self._news.of_end(job_id) as changed:
            while True:
                changed.clear()
                job = await self.get(scope, job_id)
                if job.status.terminal or self.stopping:
                    return job
                if not await _happens(changed, deadline):
                    return await self.get(scope, job_id)

    @contextlib.asynccontextmanager
    async def stream(
        self, scope: Scope, job_id: str, *, hold: float = 0.0, offset: int | None = None
    ) -> AsyncGenerator[StreamPage, None]:
        """Chunks that no reader has got yet; up to `hold` seconds are waited for the first of them.

        Readers share one cursor. It moves when the block is left without an exception, so leave it when the chunks have
        been written to the reader; until then others wait. With `offset`, all chunks from that number on, and the
        cursor stays. (Readers at different servers at the same moment may both get a chunk.)
        """
        deadline = asyncio.get_running_loop().time() + hold
        with self._news.of(job_id) as changed:
            while True:
                changed.clear()
                with self._turn_to_read(job_id, offset) as mine:
                    page = await self._page(scope, job_id, offset)
                    if page.chunks and offset is None:
                        if mine and await self._offer(page):
                            yield page
                            await self._store.write(moves.deliver, _attempt(page.job), page.first, len(page.chunks))
                            self._news.tell_about(job_id)  # other readers: it is your turn
                            return
                        page = StreamPage(page.job, page.first, (), JobStatus.IN_PROGRESS)
                if page.chunks or page.last or self.stopping or not await _happens(changed, deadline):
                    yield page
                    return

    async def cancel(self, scope: Scope, job_id: str) -> Job:
        """The job, CANCELLED; or as it had ended before."""
        job = await self._store.write(moves.cancel, scope, job_id, self._clock())
        self._runner.revoke([_attempt(job)])
        return job

    async def retry(self, scope: Scope, job_id: str) -> Job:
        """Queue a FAILED or TIMED_OUT job anew, with nothing left of its output. Raises `WrongState`, `QueueFull`."""
        self._refuse_if_stopping()
        return await self._store.write(moves.retry, scope, job_id, self._clock(), self._limits)

    async def purge(self, scope: Scope) -> int:
        """Cancel every job of the scope that waits now; how many it were."""
        until, purged = self._clock(), 0
        while number := await self._store.write(moves.purge, scope, until, _PURGE_SLICE, self._clock()):
            purged += number
        return purged

    async def expire_in(self, scope: Scope, job_id: str, remaining: int) -> Job:
        """Let the job, or its result, live `remaining` milliseconds from now. Raises `BadRequest` below 0."""
        if remaining < 0:
            raise BadRequest("ttl must be at least 0 milliseconds.", parameter="ttl", value=remaining)
        return await self._store.write(moves.expire_in, scope, job_id, remaining, self._clock())

    async def counts(self, endpoint: str) -> JobCounts:
        """Of all callers' jobs."""
        return await self._store.read(records.count, endpoint)

    def _refuse_if_stopping(self) -> None:
        if self.stopping:
            raise QueueStopping("The server is being stopped.")

    async def _page(self, scope: Scope, job_id: str, offset: int | None) -> StreamPage:
        job, first, chunks = await self._store.read(records.find_page, scope, job_id, self._clock(), offset)
        rest_follows = first + len(chunks) < job.chunk_count
        return StreamPage(job, first, chunks, JobStatus.IN_PROGRESS if rest_follows else job.status)

    @contextlib.contextmanager
    def _turn_to_read(self, job_id: str, offset: int | None) -> Iterator[bool]:
        """One reader at a time between looking at the cursor and moving it."""
        if offset is not None or job_id in self._reading:
            yield False
            return
        self._reading.add(job_id)
        try:
            yield True
        finally:
            self._reading.discard(job_id)

    async def _offer(self, page: StreamPage) -> bool:
        """Note that the chunks may be delivered, ahead of it: then a crash on the way counts as a delivery.

        False if the attempt that made them has ended since they were read.
        """
        return page.job.status.terminal or await self._store.write(moves.offer, _attempt(page.job))


def _attempt(job: Job) -> Attempt:
    return Attempt(job.id, job.attempt)


async def _happens(event: asyncio.Event, deadline: float) -> bool:
    """Wait for it until `deadline`, in the loop's seconds; false if it did not come."""
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        return False
    return True
