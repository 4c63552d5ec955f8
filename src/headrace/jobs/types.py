"""The words of the job queue: states and the one table of moves between them, what is submitted, what is recorded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from headrace.core.errors import BadRequest

SECOND = 1000
"""Times and durations of this package are whole milliseconds; points in time count from the Unix epoch."""

DAY = 24 * 60 * 60 * SECOND
SHORTEST_EXECUTION = 5 * SECOND
SHORTEST_TTL = 10 * SECOND
LONGEST = 7 * DAY

MOST_RETRIES = 1
"""How often a job is dispatched again by itself after the worker that ran it was lost."""


class JobStatus(StrEnum):
    IN_QUEUE = "IN_QUEUE"
    IN_PROGRESS = "IN_PROGRESS"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"
    TIMED_OUT = "TIMED_OUT"

    @property
    def terminal(self) -> bool:
        return self not in LIVE


LIVE = frozenset({JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS})

TRANSITIONS: Mapping[JobStatus, frozenset[JobStatus]] = {
    JobStatus.IN_QUEUE: frozenset({JobStatus.IN_PROGRESS, JobStatus.CANCELLED, JobStatus.TIMED_OUT}),
    JobStatus.IN_PROGRESS: frozenset(
        {JobStatus.IN_QUEUE, JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMED_OUT}
    ),
    JobStatus.COMPLETED: frozenset(),
    JobStatus.FAILED: frozenset({JobStatus.IN_QUEUE}),
    JobStatus.CANCELLED: frozenset(),
    JobStatus.TIMED_OUT: frozenset({JobStatus.IN_QUEUE}),
}
"""Every move there is. From IN_PROGRESS back to IN_QUEUE: the worker was lost, or gave the job back as it stopped. From
FAILED and TIMED_OUT back: only by `/retry`."""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose jobs a call may see. `owner` stands for the API key that sent them ("" where there are no keys).

    To anybody else a job does not exist.
    """

    endpoint: str
    owner: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class JobPolicy:
    """How long a job may take, in milliseconds, and whether others go first.

    `execution_timeout` bounds one attempt, 5 s to 7 days. `ttl` bounds the whole life from submission to the end, 10 s
    to 7 days. A low-priority job runs when no normal one waits; after half its ttl it takes its turn like any other.
    """

    execution_timeout: int = 600 * SECOND
    ttl: int = DAY
    low_priority: bool = False

    def check(self) -> None:
        """Raises `BadRequest`, naming the field as clients write it."""
        for name, value, shortest in (
            ("policy.executionTimeout", self.execution_timeout, SHORTEST_EXECUTION),
            ("policy.ttl", self.ttl, SHORTEST_TTL),
        ):
            if not shortest <= value <= LONGEST:
                raise BadRequest(
                    f"{name} must be from {shortest} to {LONGEST} milliseconds.", parameter=name, value=value
                )


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """What a caller asks for. `input` is any JSON object, kept as it is.

    `webhook` is called when the job ends. `sync` marks a caller that waits for the result in the same call: it decides
    the id's prefix and how long the result is kept, unless `retention` (milliseconds) says so. An `idempotency_key`
    names the submission within its scope for as long as the job is remembered; `fingerprint` is a digest of the request
    body, by which a repetition is told from another submission under the same key.
    """

    input: Mapping[str, Any]
    webhook: str | None = None
    policy: JobPolicy = JobPolicy()
    sync: bool = False
    retention: int | None = None
    idempotency_key: str | None = None
    fingerprint: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """The record of one job at one moment; a copy.

    `attempt` counts dispatches, `retries` those of them that followed the loss of a worker. `started_at` belongs to the
    latest attempt. `delivered` and `chunk_count`: how many chunks readers have taken, and how many there are. `output`
    is set when the job is COMPLETED and was asked for: each chunk as JSON text, in order.
    """

    id: str
    endpoint: str
    owner: str
    status: JobStatus
    policy: JobPolicy
    webhook: str | None
    submitted_at: int
    started_at: int | None
    finished_at: int | None
    attempt: int
    retries: int
    worker_id: str | None
    error: str | None
    delivered: int
    chunk_count: int
    output: tuple[bytes, ...] | None = None

    @property
    def delay_time(self) -> int | None:
        """Milliseconds from submission to the start of the latest attempt; None while the job waits."""
        return None if self.started_at is None else max(0, self.started_at - self.submitted_at)

    @property
    def execution_time(self) -> int | None:
        """Milliseconds that the latest attempt took; None until the job has ended, and if it never started."""
        if self.started_at is None or self.finished_at is None:
            return None
        return max(0, self.finished_at - self.started_at)


@dataclass(frozen=True, slots=True)
class StreamPage:
    """Chunks handed to one reader: `chunks[i]` is the JSON text of chunk `first + i`.

    `status` is what a reader may be told together with them: terminal only if no chunk is left after these.
    """

    job: Job
    first: int
    chunks: tuple[bytes, ...]
    status: JobStatus

    @property
    def last(self) -> bool:
        return self.status.terminal


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCounts:
    """The jobs of an endpoint: those that live now, and lifetime totals of how they ended and were dispatched again."""

    in_queue: int = 0
    in_progress: int = 0
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    timed_out: int = 0
    retried: int = 0


Emit = Callable[[Any], Awaitable[None]]
"""Adds one chunk, anything that JSON can express, to the output of the running job. It is on stable storage and visible
to readers a moment later, and before the job is COMPLETED at the latest; only a reader's flood makes the call wait."""

Execute = Callable[[Job, Mapping[str, Any], Emit], Awaitable[None]]
"""Runs one attempt: `execute(job, input, emit)`. What it emits is the job's output; returning completes the job.

It is cancelled (asyncio) when the job is no longer its own: cancelled, expired, timed out, over an output limit, or the
server stops. `EngineDead` is the loss of a worker: the crash rule decides. Any other `HeadraceError` fails the job with
its message; what is not ours fails it without one, and is logged."""

RenderWebhook = Callable[[Job, Mapping[str, Any]], bytes]
"""The JSON body that tells a webhook how a job ended, from the job with its output, and its input."""
