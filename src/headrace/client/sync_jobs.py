"""`client.jobs`: the job API for a `Client`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from headrace.client.call import Call
from headrace.client.job_calls import DEFAULT_ENDPOINT, JobCalls, JobReader, envelope_of
from headrace.client.results import Job, JobHealth

T = TypeVar("T")


class Send(Protocol):
    """Carries a call to the server and brings back its result."""

    def __call__(self, call: Call[T], /) -> T: ...


class JobStream:
    """The chunks of a job's output, each any JSON value, until the job is complete. Raises `JobFailed` if it ends
    otherwise.

    Nobody else's chunks are taken, and a connection that breaks costs none: they are asked for by number. `offset` is
    the number of the next one, for another stream to go on from.
    """

    def __init__(self, send: Send, reader: JobReader) -> None:
        self._send = send
        self._reader = reader
        self._closed = False

    @property
    def offset(self) -> int:
        return self._reader.offset

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        while not self._closed and not self._reader.has_chunk:
            if self._reader.check_ended():
                self.close()
                break
            time.sleep(self._reader.pause)
            self._reader.receive(self._send(self._reader.next_call()))
        if self._closed:
            raise StopIteration
        return self._reader.take()

    def close(self) -> None:
        """Read no further. The job goes on; `jobs.cancel` ends it."""
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Jobs:
    """The jobs of one endpoint. All durations are in seconds."""

    def __init__(self, send: Send, endpoint: str = DEFAULT_ENDPOINT) -> None:
        self._send = send
        self._calls = JobCalls(endpoint)

    def at(self, endpoint: str) -> Jobs:
        """The jobs of another endpoint: a served model's name with `/` written as `--`, or a hosted endpoint's id."""
        return Jobs(self._send, endpoint)

    def run(
        self,
        job_input: Mapping[str, Any],
        *,
        webhook: str | None = None,
        execution_timeout: float | None = None,
        ttl: float | None = None,
        low_priority: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Queue a job; it is safe when this returns.

        `execution_timeout` bounds one attempt at it, `ttl` its whole life. A submission that is sent again because the
        connection broke is the same job; an `idempotency_key` of one's own makes that so across restarts of the caller.
        """
        envelope = envelope_of(job_input, webhook, execution_timeout, ttl, low_priority)
        return self._send(self._calls.run(envelope, idempotency_key))

    def runsync(
        self,
        job_input: Mapping[str, Any],
        *,
        wait: float | None = None,
        webhook: str | None = None,
        execution_timeout: float | None = None,
        ttl: float | None = None,
        low_priority: bool | None = None,
        idempotency_key: str | None = None,
    ) -> Job:
        """Queue a job and wait for its end, up to `wait` seconds (1 to 300; default 90). Then it may still be live."""
        envelope = envelope_of(job_input, webhook, execution_timeout, ttl, low_priority)
        return self._send(self._calls.runsync(envelope, idempotency_key, wait))

    def status(self, job_id: str) -> Job:
        """The job as it is, with its output if it is complete. Raises `NotFoundError` once it is forgotten."""
        return self._send(self._calls.status(job_id))

    def list(self, *, status: str | None = None, limit: int | None = None) -> Sequence[Job]:
        """Jobs without their output, the newest first: those in one state, `limit` at most (1 to 1000; default 100)."""
        return self._send(self._calls.list(status, limit))

    def stream(self, job_id: str, *, offset: int = 0) -> JobStream:
        """The chunks of the job's output from number `offset` on, as they come."""
        return JobStream(self._send, JobReader(self._calls, job_id, offset))

    def cancel(self, job_id: str) -> Job:
        """End a job, whether it waits or runs. One that has ended stays as it is."""
        return self._send(self._calls.cancel(job_id))

    def retry(self, job_id: str) -> Job:
        """Queue a job again that failed or timed out."""
        return self._send(self._calls.retry(job_id))

    def purge(self) -> int:
        """Cancel all jobs that wait. Returns how many there were."""
        return self._send(self._calls.purge())

    def health(self) -> JobHealth:
        """Jobs by state, and what the workers do."""
        return self._send(self._calls.health())
