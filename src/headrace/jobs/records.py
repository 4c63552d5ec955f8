"""Reading jobs: rows of the store into `Job`s and chunks. Nothing here changes anything."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import msgspec
from sqlalchemy import Connection, Row, bindparam, select

from headrace.jobs.errors import JobNotFound
from headrace.jobs.tables import ANY_ENDPOINT, chunks, counters, inputs, jobs
from headrace.jobs.types import Job, JobCounts, JobPolicy, JobStatus, Scope

JOB_COLUMNS = tuple(
    column for column in jobs.columns if column.name not in ("idempotency_key", "fingerprint", "turn", "input_bytes")
)

_BY_ID = select(*JOB_COLUMNS).where(jobs.c.id == bindparam("job_id"))
_CHUNKS = (
    select(chunks.c.body)
    .where(chunks.c.job_id == bindparam("job_id"), chunks.c.place >= bindparam("first"))
    .order_by(chunks.c.place)
)
_COUNTS = select(counters).where(counters.c.endpoint == bindparam("endpoint"))

_PAGE_CHUNKS = 1000
_PAGE_BYTES = 8_000_000
"""Where a page of a stream ends, so that no reply grows without bound. A page has one chunk at least."""


def job_of(row: Row[Any]) -> Job:
    """A row of `JOB_COLUMNS`."""
    return Job(
        id=row.id,
        endpoint=row.endpoint,
        owner=row.owner,
        status=row.status,
        policy=JobPolicy(execution_timeout=row.execution_timeout, ttl=row.ttl, low_priority=row.low_priority),
        webhook=row.webhook,
        submitted_at=row.submitted_at,
        started_at=row.started_at,
        finished_at=row.finished_at,
        attempt=row.attempt,
        retries=row.retries,
        worker_id=row.worker_id,
        error=row.error,
        delivered=row.delivered,
        chunk_count=row.chunk_count,
    )


def visible(row: Row[Any] | None, scope: Scope, job_id: str, now: int) -> Row[Any]:
    """The row, if this caller may see it and its result is still kept. Raises `JobNotFound`."""
    if row is None or row.endpoint != scope.endpoint or row.owner != scope.owner:
        raise JobNotFound(job_id)
    if row.status.terminal and row.deadline <= now:
        raise JobNotFound(job_id)
    return row


def find(connection: Connection, scope: Scope, job_id: str, now: int) -> Job:
    """The job without its output. Raises `JobNotFound`."""
    return job_of(visible(connection.execute(_BY_ID, {"job_id": job_id}).one_or_none(), scope, job_id, now))


def find_with_output(connection: Connection, scope: Scope, job_id: str, now: int) -> Job:
    """The job, with its output if it is COMPLETED. Raises `JobNotFound`."""
    return _with_output(connection, find(connection, scope, job_id, now))


def find_page(
    connection: Connection, scope: Scope, job_id: str, now: int, offset: int | None
) -> tuple[Job, int, tuple[bytes, ...]]:
    """The job, the number of the first chunk to read, and the chunks from there on, up to a page.

    `offset` None reads on from where readers have got to. Raises `JobNotFound`.
    """
    job = find(connection, scope, job_id, now)
    first = job.delivered if offset is None else offset
    if first >= job.chunk_count:
        return job, first, ()
    bodies: list[bytes] = []
    size = 0
    for (body,) in connection.execute(_CHUNKS.limit(_PAGE_CHUNKS), {"job_id": job_id, "first": first}):
        size += len(body)
        if bodies and size > _PAGE_BYTES:
            break
        bodies.append(bytes(body))
    return job, first, tuple(bodies)


def find_all(connection: Connection, scope: Scope, status: JobStatus | None, limit: int, now: int) -> list[Job]:
    """Jobs without their outputs, the newest first."""
    query = select(*JOB_COLUMNS).where(jobs.c.endpoint == scope.endpoint, jobs.c.owner == scope.owner)
    query = query.where(jobs.c.status.in_([JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS]) | (jobs.c.deadline > now))
    if status is not None:
        query = query.where(jobs.c.status == status)
    rows = connection.execute(query.order_by(jobs.c.submitted_at.desc(), jobs.c.turn.desc()).limit(limit))
    return [job_of(row) for row in rows]


def find_for_webhook(connection: Connection, job_id: str) -> tuple[Job, dict[str, Any]] | None:
    """Whoever it belongs to: the job with its output, and its input; None if it is gone."""
    row = connection.execute(_BY_ID, {"job_id": job_id}).one_or_none()
    if row is None:
        return None
    body = connection.execute(select(inputs.c.body).where(inputs.c.job_id == job_id)).scalar_one()
    return _with_output(connection, job_of(row)), msgspec.json.decode(body)


def attempts_of(connection: Connection, worker_id: str) -> set[tuple[str, int]]:
    """The attempts that the store takes this worker to be making."""
    query = select(jobs.c.id, jobs.c.attempt).where(
        ANY_ENDPOINT, jobs.c.status == JobStatus.IN_PROGRESS, jobs.c.worker_id == worker_id
    )
    return {(row.id, row.attempt) for row in connection.execute(query)}


def attempts_among(connection: Connection, ids: Sequence[str]) -> set[tuple[str, int]]:
    """The attempts now being made of these jobs."""
    query = select(jobs.c.id, jobs.c.attempt).where(jobs.c.id.in_(ids), jobs.c.status == JobStatus.IN_PROGRESS)
    return {(row.id, row.attempt) for row in connection.execute(query)}


def count(connection: Connection, endpoint: str) -> JobCounts:
    row = connection.execute(_COUNTS, {"endpoint": endpoint}).one_or_none()
    if row is None:
        return JobCounts()
    names = [field.name for field in dataclasses.fields(JobCounts)]
    return JobCounts(**{name: row._mapping[name] for name in names})


def _with_output(connection: Connection, job: Job) -> Job:
    if job.status is not JobStatus.COMPLETED:
        return job
    rows = connection.execute(_CHUNKS, {"job_id": job.id, "first": 0})
    return dataclasses.replace(job, output=tuple(bytes(body) for (body,) in rows))
