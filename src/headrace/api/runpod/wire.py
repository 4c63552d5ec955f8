"""Replies of the job API. What is absent is left out; every duration is whole milliseconds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from headrace.jobs import Job, JobCounts, JobStatus, StreamPage
from headrace.service import EngineState

_encode = msgspec.json.Encoder().encode


class JobState(Struct):
    """What a call that changes a job answers."""

    id: str
    status: str


class JobObject(Struct, rename="camel", kw_only=True):
    """A job as /status shows it. `output` is the list of what the job produced."""

    id: str
    status: str
    delay_time: int | UnsetType = UNSET
    execution_time: int | UnsetType = UNSET
    worker_id: str | UnsetType = UNSET
    output: Raw | UnsetType = UNSET
    error: str | UnsetType = UNSET
    retries: int | UnsetType = UNSET


class WebhookBody(JobObject, rename="camel", kw_only=True):
    """What a webhook is told: the job as /status shows it, and what was submitted."""

    input: Mapping[str, Any]
    webhook: str | None


class _StreamPart(Struct):
    output: Raw


class StreamReply(Struct):
    """One poll of /stream, or one line of it."""

    status: str
    stream: list[_StreamPart]
    error: str | UnsetType = UNSET


class JobList(Struct):
    jobs: list[JobObject]


class Purged(Struct):
    removed: int
    status: str = "completed"


class _JobGauges(Struct, rename="camel", kw_only=True):
    """`in_progress` and `in_queue` are now; the others are totals over the life of the queue."""

    completed: int
    failed: int
    in_progress: int
    in_queue: int
    retried: int


class _WorkerGauges(Struct, kw_only=True):
    idle: int = 0
    initializing: int = 0
    ready: int = 0
    running: int = 0
    throttled: int = 0
    unhealthy: int = 0


class Health(Struct):
    jobs: _JobGauges
    workers: _WorkerGauges


def encode(reply: Struct) -> bytes:
    """On one line, which readers of lines can take for one of theirs."""
    return _encode(reply) + b"\n"


def job_state(job: Job) -> JobState:
    return JobState(job.id, job.status)


def job_object(job: Job) -> JobObject:
    return JobObject(**_facts(job))


def webhook_body(job: Job, given: Mapping[str, Any]) -> bytes:
    """`given` is the job's input."""
    return _encode(WebhookBody(**_facts(job), input=given, webhook=job.webhook))


def job_list(jobs: Sequence[Job]) -> JobList:
    return JobList([job_object(job) for job in jobs])


def stream_reply(page: StreamPage) -> StreamReply:
    error = page.job.error if page.last else None
    return StreamReply(
        page.status, [_StreamPart(Raw(chunk)) for chunk in page.chunks], UNSET if error is None else error
    )


def health(counts: JobCounts, engine: EngineState) -> Health:
    """The engine is the one worker there is; `idle` and `ready` are equal, as they are on the platform."""
    return Health(
        _JobGauges(
            completed=counts.completed,
            failed=counts.failed + counts.timed_out,
            in_progress=counts.in_progress,
            in_queue=counts.in_queue,
            retried=counts.retried,
        ),
        _workers(counts, engine),
    )


def _workers(counts: JobCounts, engine: EngineState) -> _WorkerGauges:
    if engine is EngineState.LOADING:
        return _WorkerGauges(initializing=1)
    if engine is not EngineState.READY:
        return _WorkerGauges(unhealthy=1)
    return _WorkerGauges(running=1) if counts.in_progress else _WorkerGauges(idle=1, ready=1)


def _facts(job: Job) -> dict[str, Any]:
    """The fields that a job has in its state, by their names in `JobObject`."""
    facts: dict[str, Any] = {"id": job.id, "status": job.status}
    if job.status is not JobStatus.IN_QUEUE:
        facts |= {"delay_time": job.delay_time, "execution_time": job.execution_time, "worker_id": job.worker_id}
    if job.status is JobStatus.COMPLETED and job.output is not None:
        facts["output"] = Raw(b"[" + b",".join(job.output) + b"]")
    if job.status.terminal:
        facts["error"] = job.error
    if job.retries:
        facts["retries"] = job.retries
    return {name: value for name, value in facts.items() if value is not None}
