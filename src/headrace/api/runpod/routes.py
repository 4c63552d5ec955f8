"""The job routes, under `/v2/{endpoint}` and bare: read, ask the queue, write."""

from __future__ import annotations

import hashlib
import re
from collections.abc import AsyncIterator, Callable
from functools import partial

from fastapi import APIRouter, Depends, Request, Response
from msgspec import Struct

from headrace.api.auth import owner_of
from headrace.api.body import parsed, read_bytes
from headrace.api.disconnect import while_connected
from headrace.api.live import LiveRequests
from headrace.api.openai.routes import openai_router
from headrace.api.pooling.routes import pooling_router
from headrace.api.runpod.cancelled import CancelledStreams
from headrace.api.runpod.docs import describe
from headrace.api.runpod.endpoints import DEFAULT, Endpoints
from headrace.api.runpod.envelope import read_envelope
from headrace.api.runpod.limits import RateLimits
from headrace.api.runpod.query import integer, wait_seconds, word
from headrace.api.runpod.stream import HOLD_SECONDS, ChunkReader, LinesReply, PollReply, wants_lines
from headrace.api.runpod.wire import Purged, encode, health, job_list, job_object, job_state, stream_reply
from headrace.config.sections import ServeConfig
from headrace.core.errors import BadRequest
from headrace.jobs import Job, JobNotFound, JobPolicy, JobQueue, JobStatus, Scope, Submission
from headrace.jobs.types import SECOND
from headrace.service import Services

UNDER_ENDPOINT = "/v2/{endpoint}"

WAIT_SECONDS = 90.0
"""How long /runsync and /status-sync wait for the end of a job, unless they say."""

LONGEST_LIFE = 7 * 24 * 3600 * 1000
"""Milliseconds that `?ttl=` may ask for."""

LARGEST_OFFSET = (1 << 31) - 1
MOST_LISTED = 1000
DEFAULT_LISTED = 100

_JOB_ID = re.compile(r"[\w-]{1,100}", re.ASCII)
_LONGEST_KEY = 255
_NO_BODY = 64 * 1024
"""Bytes of a body that nobody reads, on routes that need none."""


def runpod_router(services: Services, queue: JobQueue, config: ServeConfig, live: LiveRequests) -> APIRouter:
    """The family's routes, and the OpenAI routes as `…/openai/v1/…`."""
    family = RunpodFamily(services, queue, config)
    router = APIRouter(tags=["Runpod-compatible jobs"])
    for path, methods, handler, operation, queries in (
        ("/run", ("POST",), family.run, "run", ()),
        ("/runsync", ("POST",), family.run_and_wait, "runsync", ("wait",)),
        ("/status/{job_id}", ("GET", "POST"), family.status, "status", ("ttl",)),
        ("/status-sync/{job_id}", ("GET", "POST"), family.status_in_time, "status", ("wait",)),
        ("/stream/{job_id}", ("GET", "POST"), family.stream, "stream", ("wait", "mode", "offset")),
        ("/cancel/{job_id}", ("POST",), family.cancel, "cancel", ()),
        ("/retry/{job_id}", ("POST",), family.retry, "retry", ()),
        ("/purge-queue", ("POST",), family.purge, "purge-queue", ()),
        ("/jobs", ("GET",), family.list_jobs, "jobs", ("status", "limit")),
        ("/health", ("GET",), family.health, "health", ()),
    ):
        admitted = [Depends(family.admission(operation))]
        shown = describe(UNDER_ENDPOINT + path, queries, takes_job=operation in ("run", "runsync"))
        for method in methods:
            router.add_api_route(
                UNDER_ENDPOINT + path, handler, methods=[method], dependencies=admitted, openapi_extra=shown
            )
            if path != "/health":  # which is the OpenAI family's where it is bare
                router.add_api_route(path, handler, methods=[method], dependencies=admitted, include_in_schema=False)
    direct = APIRouter()
    direct.include_router(openai_router(services, config, live))
    direct.include_router(pooling_router(services, config, live))
    for prefix in (UNDER_ENDPOINT, ""):
        admitted = [Depends(family.admission("openai"))]
        router.include_router(direct, prefix=prefix + "/openai", dependencies=admitted, include_in_schema=False)
    return router


class RunpodFamily:
    """The handlers. They hold nothing of a job."""

    def __init__(self, services: Services, queue: JobQueue, config: ServeConfig) -> None:
        self._services = services
        self._queue = queue
        self._endpoints = Endpoints([model.config for model in services.models])
        self._limits = RateLimits(config.runpod.job_rate_limits, config.runpod.job_concurrency_limits)
        self._policy = JobPolicy(
            execution_timeout=round(config.jobs.job_execution_timeout * SECOND),
            ttl=round(config.jobs.job_ttl * SECOND),
        )
        self._sync_retention = config.jobs.job_sync_retention
        self._largest_body = config.runpod.max_job_body_bytes
        self._lines_by_default = config.runpod.job_stream_default == "lines"
        self._poll_reply = CancelledStreams().reply if config.runpod.job_stream_ends_cancelled else stream_reply

    def admission(self, operation: str) -> Callable[[Request], AsyncIterator[None]]:
        """A dependency: the endpoint exists, and its limit on the operation is kept while a request is answered."""

        async def admitted(http: Request) -> AsyncIterator[None]:
            with self._limits.admit(self._endpoint(http), operation):
                yield

        return admitted

    async def run(self, http: Request) -> Response:
        """Queue a job: it is on stable storage when this answers."""
        job = await self._submit(http, self._largest_body, sync=False)
        return _json(job_state(job))

    async def run_and_wait(self, http: Request) -> Response:
        """Queue a job and wait for its end, `wait` milliseconds at most. The job does not depend on who waits."""
        wait = wait_seconds(http)
        job = await self._submit(http, 2 * self._largest_body, sync=True, wait=wait)
        job = await while_connected(http.receive, self._ended(self._scope(http), job.id, wait))
        return _json(job_state(job) if job.status is JobStatus.IN_QUEUE else job_object(job))

    async def status(self, http: Request) -> Response:
        """A job, with its output if it is complete. `ttl`: milliseconds after which it is forgotten."""
        ttl = integer(http, "ttl", 1, LONGEST_LIFE)
        scope, job_id = self._scope(http), _job_id(http)
        job = await self._queue.get(scope, job_id)
        if ttl is not None:
            await self._queue.expire_in(scope, job_id, ttl)
        return _json(job_object(job))

    async def status_in_time(self, http: Request) -> Response:
        """A job once it has ended, or as it is after `wait` milliseconds."""
        wait = wait_seconds(http)
        await read_bytes(http, _NO_BODY)
        scope, job_id = self._scope(http), _job_id(http)
        return _json(job_object(await while_connected(http.receive, self._ended(scope, job_id, wait))))

    async def stream(self, http: Request) -> Response:
        """The chunks that nobody has read yet, in one reply or as lines.

        `wait`: milliseconds to hold an empty reply. `mode`: "poll" or "lines". `offset`: read from this chunk on,
        whether it was read before or not, and leave the common cursor where it is.
        """
        wait = wait_seconds(http)
        mode = word(http, "mode", ("poll", "lines"))
        offset = integer(http, "offset", 0, LARGEST_OFFSET)
        await read_bytes(http, _NO_BODY)
        reader = ChunkReader(self._queue, self._scope(http), _job_id(http), offset)
        if wants_lines(http, mode, by_default=self._lines_by_default):
            return LinesReply(reader)
        return PollReply(reader, HOLD_SECONDS if wait is None else wait, self._poll_reply)

    async def cancel(self, http: Request) -> Response:
        """End a job, whether it waits or runs. One that has ended stays as it is."""
        return _json(job_state(await self._queue.cancel(self._scope(http), _job_id(http))))

    async def retry(self, http: Request) -> Response:
        """Queue a job again that failed or timed out."""
        return _json(job_state(await self._queue.retry(self._scope(http), _job_id(http))))

    async def purge(self, http: Request) -> Response:
        """Cancel all jobs that wait."""
        return _json(Purged(await self._queue.purge(self._scope(http))))

    async def list_jobs(self, http: Request) -> Response:
        """Jobs without their output, the newest first; of one `status`, and `limit` at most."""
        status = word(http, "status", tuple(JobStatus))
        limit = integer(http, "limit", 1, MOST_LISTED) or DEFAULT_LISTED
        wanted = None if status is None else JobStatus(status)
        jobs = await self._queue.list(self._scope(http), status=wanted, limit=limit)
        return _json(job_list(jobs))

    async def health(self, http: Request) -> Response:
        """Jobs by state, and what the engine does."""
        counts = await self._queue.counts(self._endpoint(http))
        return _json(health(counts, self._services.engine_state))

    async def _submit(self, http: Request, largest: int, *, sync: bool, wait: float | None = None) -> Job:
        raw = await read_bytes(http, largest)
        envelope = await parsed(raw, partial(read_envelope, default=self._policy))
        submission = Submission(
            input=envelope.input,
            webhook=envelope.webhook,
            policy=envelope.policy,
            sync=sync,
            retention=None if wait is None else round(max(self._sync_retention, wait) * SECOND),
            idempotency_key=_idempotency_key(http),
            fingerprint=hashlib.sha256(raw).digest(),
        )
        return await self._queue.submit(self._scope(http), submission)

    async def _ended(self, scope: Scope, job_id: str, wait: float | None) -> Job:
        """The job, ended or as it is when the wait is over."""
        return await self._queue.wait(scope, job_id, WAIT_SECONDS if wait is None else wait)

    def _endpoint(self, http: Request) -> str:
        return self._endpoints.queue_of(http.path_params.get("endpoint", DEFAULT))

    def _scope(self, http: Request) -> Scope:
        return Scope(self._endpoint(http), owner_of(http))


def _job_id(http: Request) -> str:
    job_id: str = http.path_params["job_id"]
    if not _JOB_ID.fullmatch(job_id):  # nothing that a store could stumble over
        raise JobNotFound(job_id)
    return job_id


def _idempotency_key(http: Request) -> str | None:
    key = http.headers.get("idempotency-key")
    if key is not None and not 1 <= len(key) <= _LONGEST_KEY:
        raise BadRequest(f"Idempotency-Key must have 1 to {_LONGEST_KEY} characters.", parameter="Idempotency-Key")
    return key


def _json(reply: Struct) -> Response:
    return Response(encode(reply), media_type="application/json")
