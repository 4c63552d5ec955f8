"""The life of the job queue in one server: opened with its store, run once there is an engine, stopped before it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import uuid
from collections.abc import Awaitable, Callable, Sequence

from headrace.config.jobs import JobsConfig
from headrace.jobs import sweeping
from headrace.jobs.clock import Clock, system_clock
from headrace.jobs.courier import Courier
from headrace.jobs.errors import StoreUnavailable, StoreUnusable
from headrace.jobs.news import News
from headrace.jobs.queue import JobQueue
from headrace.jobs.runner import Runner
from headrace.jobs.store import Store
from headrace.jobs.transaction import Changes
from headrace.jobs.types import SECOND, Execute, RenderWebhook

log = logging.getLogger(__name__)

_SWEEP_SECONDS = 0.5
_TIDY_SECONDS = 30.0
_LEASE_PARTS = 3
"""How often a lease is renewed before it would run out."""


class JobService:
    """Everything about jobs that lives as long as the server. `queue` is for the routes.

    Jobs of `endpoints` are run here. `render_webhook` writes what a webhook is told. The queue answers 503 until
    `start` has opened the store, and goes on doing so if that fails. From then on it takes jobs in; `open` runs them.
    """

    def __init__(
        self,
        config: JobsConfig,
        *,
        endpoints: Sequence[str],
        render_webhook: RenderWebhook,
        clock: Clock = system_clock,
    ) -> None:
        self._store = store = Store(config)
        self._lease = config.job_lease
        self._clock = clock
        self._worker_id = f"w-{uuid.uuid4().hex[:12]}"
        self._news = News()
        self._runner = Runner(store, config, endpoints, self._worker_id, clock)
        self._courier = Courier(store, config, render_webhook, clock)
        self._background: list[asyncio.Task[None]] = []
        self._checks: set[asyncio.Task[None]] = set()
        self.queue = JobQueue(store, config, self._runner, self._news, clock)

    async def start(self) -> None:
        """Open the store and take care of what an earlier server has left.

        Raises `StoreInUse`, `StoreUnusable` and `ConfigError`, all of them `StartupError`s.
        """
        await self._store.open(self._on_change, self._on_remote_change)
        try:
            await self._take_up()
        except StoreUnavailable as problem:
            await self._store.close()
            raise StoreUnusable(f"The job store cannot be used: {problem.message}") from problem
        self._keep_doing(_SWEEP_SECONDS, self._sweep)
        self._keep_doing(self._lease / _LEASE_PARTS, self._heartbeat)
        self._keep_doing(_SWEEP_SECONDS, self._store.keep_up)
        self._keep_doing(_TIDY_SECONDS, self._store.tidy)
        self._background.append(asyncio.create_task(self._courier.run(), name="jobs-courier"))

    def open(self, execute: Execute) -> None:
        """The model is loaded: run jobs from now on."""
        self._runner.open(execute)

    async def stop(self, grace: float) -> None:
        """Take nothing in, let running jobs finish for `grace` seconds, give the others back, close the store.

        To be called while the engine still runs. Whoever waits for a job is sent home at once. If the call is
        cancelled, it may be made again, with less grace.
        """
        self.queue.stopping = True
        self._news.tell_everybody()
        await self._runner.stop(grace)
        for task in [*self._background, *self._checks]:
            task.cancel()
        await asyncio.gather(*self._background, *self._checks, return_exceptions=True)
        with contextlib.suppress(StoreUnavailable):
            await self._store.write(sweeping.end_lease, self._worker_id)
        await self._store.close()

    async def _take_up(self) -> None:
        if not self._store.shared:
            await self._store.write(sweeping.take_over)
        await self._renew_lease()
        await self._reap()

    def _keep_doing(self, seconds: float, work: Callable[[], Awaitable[None]]) -> None:
        self._background.append(asyncio.create_task(_every(seconds, work)))

    async def _sweep(self) -> None:
        more = True
        while more:
            swept = await self._store.write(sweeping.sweep, self._clock())
            self._runner.revoke(swept.expired)
            more = swept.more
        if self._store.shared:
            await self._reap()
        self._courier.wake()

    async def _heartbeat(self) -> None:
        await self._renew_lease()
        await self._runner.reconcile()
        self._runner.wake()  # in case a notification was lost, or the lease had run out

    async def _renew_lease(self) -> None:
        until = self._clock() + round(self._lease * SECOND)
        await self._store.write(sweeping.renew_lease, self._worker_id, until)

    async def _reap(self) -> None:
        while await self._store.write(sweeping.reap, self._clock()):
            pass

    def _on_change(self, changes: Changes) -> None:
        self._news.tell(changes)
        if changes.queued:
            self._runner.wake()
        if changes.calls:
            self._courier.wake()

    def _on_remote_change(self, changes: Changes) -> None:
        self._on_change(changes)
        if self._runner.runs_any(changes.ids):
            check = asyncio.create_task(_forgiving(lambda: self._runner.verify(changes.ids)))
            self._checks.add(check)
            check.add_done_callback(self._checks.discard)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    while True:
        await asyncio.sleep(seconds)
        await _forgiving(work)


async def _forgiving(work: Callable[[], Awaitable[None]]) -> None:
    """What a store that is away keeps from being done is done when it is back: the writer has logged it."""
    try:
        await work()
    except StoreUnavailable:
        pass
    except Exception:
        log.exception("Work in the background of the job queue failed")
