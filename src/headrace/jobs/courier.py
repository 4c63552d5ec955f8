"""Calls webhooks: at least once for every job that has one and ends, three tries at most, over restarts."""

from __future__ import annotations

import asyncio
import logging
from urllib.parse import urlsplit

import httpx

from headrace.config.jobs import JobsConfig
from headrace.jobs import outbox, records
from headrace.jobs.addresses import ForbiddenAddress, resolve
from headrace.jobs.clock import Clock
from headrace.jobs.errors import StoreUnavailable
from headrace.jobs.store import Store
from headrace.jobs.types import SECOND, RenderWebhook

log = logging.getLogger(__name__)

_TRIES = 3
_TRY_SECONDS = 10
_AT_A_TIME = 16
_TAKEN_FOR = 6 * _TRY_SECONDS * SECOND
"""After that a call that was taken and not heard of again is made by somebody else: its server has gone."""


class Courier:
    """Makes the calls that are due. `render` writes the body of one."""

    def __init__(self, store: Store, config: JobsConfig, render: RenderWebhook, clock: Clock) -> None:
        self._store = store
        self._config = config
        self._render = render
        self._clock = clock
        self._due = asyncio.Event()

    def wake(self) -> None:
        """A call may be due."""
        self._due.set()

    async def run(self) -> None:
        """Until it is cancelled. A call that is cut off is made again by the next server."""
        while True:
            await self._due.wait()
            self._due.clear()
            try:
                if taken := await self._take():
                    await self._call_all(taken)
            except StoreUnavailable:
                continue  # the sweeper wakes us again
            except Exception:
                log.exception("Webhooks could not be called")

    async def _take(self) -> list[tuple[str, int]]:
        now = self._clock()
        return await self._store.write(outbox.take_due, _AT_A_TIME, now + _TAKEN_FOR, now)

    async def _call_all(self, taken: list[tuple[str, int]]) -> None:
        """Make these calls, and those that become due meanwhile."""
        async with httpx.AsyncClient(timeout=_TRY_SECONDS, trust_env=False, follow_redirects=False) as client:
            while taken:
                await asyncio.gather(*(self._deliver(client, job_id, tried) for job_id, tried in taken))
                taken = await self._take()

    async def _deliver(self, client: httpx.AsyncClient, job_id: str, tried: int) -> None:
        problem = await self._call(client, job_id)
        if problem is None:
            await self._store.write(outbox.settle, job_id, tried)
        elif tried < _TRIES:
            log.info("Job %s: the webhook failed (%s), try %d of %d", job_id, problem, tried, _TRIES)
            again = self._clock() + round(self._config.job_webhook_retry_delay * SECOND)
            await self._store.write(outbox.postpone, job_id, tried, again)
        else:
            log.warning("Job %s: the webhook failed (%s) and is given up after %d tries", job_id, problem, _TRIES)
            await self._store.write(outbox.settle, job_id, tried)

    async def _call(self, client: httpx.AsyncClient, job_id: str) -> str | None:
        """Make one call; what went wrong, None if it was answered with 2xx or there is nothing left to tell."""
        found = await self._store.read(records.find_for_webhook, job_id)
        if found is None:
            return None
        job, job_input = found
        if job.webhook is None or not job.status.terminal:
            return None
        body = self._render(job, job_input)
        try:
            async with asyncio.timeout(_TRY_SECONDS):
                return await self._post(client, job.webhook, body)
        except TimeoutError:
            return f"no answer in {_TRY_SECONDS} s"
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ForbiddenAddress) as failure:
            return str(failure) or type(failure).__name__

    async def _post(self, client: httpx.AsyncClient, url: str, body: bytes) -> str | None:
        address = await resolve(url, allow_private=self._config.job_webhook_private)
        name = urlsplit(url).hostname or ""
        target = httpx.URL(url)
        headers = {"Content-Type": "application/json", "Host": target.netloc.decode()}
        # To the address that was checked: a name may resolve to another one a moment later.
        request = client.build_request(
            "POST", target.copy_with(host=address), content=body, headers=headers, extensions={"sni_hostname": name}
        )
        answer = await client.send(request, stream=True)  # nothing is done with its body
        await answer.aclose()
        return None if answer.is_success else f"HTTP {answer.status_code}"
