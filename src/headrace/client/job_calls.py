"""The job API: each of its routes as a `Call`, and the reading of a job's stream, poll by poll."""

from __future__ import annotations

import uuid
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from headrace.client.call import Call, Request, json_body, reading
from headrace.client.errors import JobFailed
from headrace.client.results import ENDED, Job, JobHealth, JobPage, Result

DEFAULT_ENDPOINT = "default"

RUNSYNC_WAIT = 90.0
"""Seconds for which the server waits for the end of a job if it is not told."""

POLL_SECONDS = 5.0
"""How long a poll of a stream may wait for a chunk. Servers and what stands in front of them allow at least 10."""

PAUSE_SECONDS = 0.1
"""Between polls that brought nothing: there are servers that do not wait."""


class _JobList(Result, frozen=True):
    jobs: list[Job]


class _Purged(Result, frozen=True):
    removed: int


_read_job = reading(Job)
_read_jobs = reading(_JobList)
_read_page = reading(JobPage)
_read_health = reading(JobHealth)
_read_purged = reading(_Purged)


class JobCalls:
    """The calls of one endpoint."""

    def __init__(self, endpoint: str) -> None:
        self._root = f"/v2/{quote(endpoint, safe='')}"

    def run(self, envelope: Mapping[str, Any], idempotency_key: str | None) -> Call[Job]:
        return Call(self._submission("/run", envelope, idempotency_key), _read_job)

    def runsync(self, envelope: Mapping[str, Any], idempotency_key: str | None, wait: float | None) -> Call[Job]:
        query = {} if wait is None else {"wait": _milliseconds(wait)}
        hold = RUNSYNC_WAIT if wait is None else wait
        return Call(self._submission("/runsync", envelope, idempotency_key, query, hold), _read_job)

    def status(self, job_id: str) -> Call[Job]:
        return Call(Request(method="GET", path=self._path("status", job_id)), _read_job)

    def cancel(self, job_id: str) -> Call[Job]:
        return Call(Request(method="POST", path=self._path("cancel", job_id)), _read_job)

    def retry(self, job_id: str) -> Call[Job]:
        """Not repeatable: the second time, the job is no longer one that had failed."""
        return Call(Request(method="POST", path=self._path("retry", job_id), repeatable=False), _read_job)

    def purge(self) -> Call[int]:
        """Not repeatable: it would take jobs that were queued in between, and count only those."""
        request = Request(method="POST", path=f"{self._root}/purge-queue", repeatable=False)
        return Call(request, lambda body: _read_purged(body).removed)

    def health(self) -> Call[JobHealth]:
        return Call(Request(method="GET", path=f"{self._root}/health"), _read_health)

    def list(self, status: str | None, limit: int | None) -> Call[Sequence[Job]]:
        given = {"status": status, "limit": None if limit is None else str(limit)}
        query = {name: value for name, value in given.items() if value is not None}
        return Call(Request(method="GET", path=f"{self._root}/jobs", query=query), lambda body: _read_jobs(body).jobs)

    def page(self, job_id: str, offset: int) -> Call[JobPage]:
        """Repeatable, as an offset leaves the server's own cursor alone."""
        query = {"mode": "poll", "offset": str(offset), "wait": _milliseconds(POLL_SECONDS)}
        request = Request(method="GET", path=self._path("stream", job_id), query=query, hold=POLL_SECONDS)
        return Call(request, _read_page)

    def _path(self, operation: str, job_id: str) -> str:
        return f"{self._root}/{operation}/{quote(job_id, safe='')}"

    def _submission(
        self,
        path: str,
        envelope: Mapping[str, Any],
        idempotency_key: str | None,
        query: Mapping[str, str] | None = None,
        hold: float = 0.0,
    ) -> Request:
        """Repeatable, because the key makes a repetition the same job."""
        return Request(
            method="POST",
            path=self._root + path,
            body=json_body(envelope),
            query=query or {},
            headers={"Idempotency-Key": idempotency_key or uuid.uuid4().hex},
            hold=hold,
        )


def envelope_of(
    job_input: Mapping[str, Any],
    webhook: str | None,
    execution_timeout: float | None,
    ttl: float | None,
    low_priority: bool | None,
) -> dict[str, Any]:
    """The body of a submission. Durations are in seconds, and in milliseconds on the wire."""
    policy = {
        "executionTimeout": None if execution_timeout is None else round(execution_timeout * 1000),
        "ttl": None if ttl is None else round(ttl * 1000),
        "lowPriority": low_priority,
    }
    given = {name: value for name, value in policy.items() if value is not None}
    return {"input": job_input, "webhook": webhook, "policy": given or None}


class JobReader:
    """Reads the chunks of one job, without I/O: ask for `next_call`, hand its page to `receive`, `take` chunks."""

    def __init__(self, calls: JobCalls, job_id: str, offset: int) -> None:
        self._calls = calls
        self._job_id = job_id
        self._received = offset
        self._chunks: deque[Any] = deque()
        self._page: JobPage | None = None

    @property
    def offset(self) -> int:
        """The number of the chunk that is taken next."""
        return self._received - len(self._chunks)

    @property
    def has_chunk(self) -> bool:
        return bool(self._chunks)

    @property
    def pause(self) -> float:
        """Seconds to wait before `next_call`."""
        return PAUSE_SECONDS if self._page is not None and not self._page.stream else 0.0

    def next_call(self) -> Call[JobPage]:
        return self._calls.page(self._job_id, self._received)

    def receive(self, page: JobPage) -> None:
        self._page = page
        self._received += len(page.stream)
        self._chunks.extend(chunk.output for chunk in page.stream)

    def take(self) -> Any:
        """The next chunk, any JSON value. Only where `has_chunk`."""
        return self._chunks.popleft()

    def check_ended(self) -> bool:
        """Whether the job is complete and no page is to come. Raises `JobFailed` if it ended otherwise."""
        if self._page is None or self._page.status not in ENDED:
            return False
        if self._page.status != "COMPLETED":
            reason = f": {self._page.error}" if self._page.error else "."
            message = f"Job {self._job_id} ended as {self._page.status}{reason}"
            raise JobFailed(message, job_id=self._job_id, status=self._page.status)
        return True


def _milliseconds(seconds: float) -> str:
    return str(round(seconds * 1000))
