"""Taking a job in: its place in the queue, the bounds of the queue, and submissions that are repeated."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

import msgspec
from sqlalchemy import Row, bindparam, delete, insert, select

from headrace.jobs.errors import IdempotencyConflict, QueueFull
from headrace.jobs.records import JOB_COLUMNS, job_of
from headrace.jobs.tables import chunks, inputs, jobs
from headrace.jobs.transaction import Transaction
from headrace.jobs.types import SECOND, Job, JobPolicy, JobStatus, Scope, Submission

_INSERT = insert(jobs)
_INSERT_INPUT = insert(inputs)
_SAME_KEY = select(*JOB_COLUMNS, jobs.c.fingerprint).where(
    jobs.c.endpoint == bindparam("endpoint"),
    jobs.c.owner == bindparam("owner"),
    jobs.c.idempotency_key == bindparam("key"),
)


class NewJob:
    """A submission on its way into the store. Made on the event loop; `insert` runs in the writer's thread.

    `retention`: milliseconds that the result is kept. `limits`: the most jobs, and bytes of input, that may wait in the
    whole store.
    """

    def __init__(self, scope: Scope, submission: Submission, retention: int, limits: tuple[int, int]) -> None:
        self._scope = scope
        self._submission = submission
        self._retention = retention
        self._limits = limits
        self._body = msgspec.json.encode(submission.input)

    def insert(self, transaction: Transaction, now: int) -> Job:
        """The job; the earlier one, if this submission repeats it. Raises `QueueFull` and `IdempotencyConflict`."""
        earlier = self._earlier(transaction)
        forgotten = earlier is not None and earlier.status.terminal and earlier.deadline <= now
        if earlier is not None and not forgotten:
            if earlier.fingerprint != self._submission.fingerprint:
                raise IdempotencyConflict(
                    "This idempotency key was used with another request body.",
                    parameter="Idempotency-Key",
                    value=self._submission.idempotency_key,
                )
            return job_of(earlier)
        check_room(transaction, len(self._body), self._limits)
        if earlier is not None:  # only not swept up yet
            remove(transaction, [earlier.id])
        job = self._record(now)
        transaction.execute(_INSERT, self._row(job, turn_of(transaction, now, job.policy)))
        transaction.execute(_INSERT_INPUT, {"job_id": job.id, "body": self._body})
        transaction.queued(job.id, job.endpoint, len(self._body))
        return job

    def _earlier(self, transaction: Transaction) -> Row[Any] | None:
        """The job that was submitted under the same key."""
        key = self._submission.idempotency_key
        if key is None:
            return None
        values = {"endpoint": self._scope.endpoint, "owner": self._scope.owner, "key": key}
        return transaction.execute(_SAME_KEY, values).one_or_none()

    def _record(self, now: int) -> Job:
        return Job(
            id=f"{'sync-' if self._submission.sync else ''}{_ordered_uuid(now)}-u1",
            endpoint=self._scope.endpoint,
            owner=self._scope.owner,
            status=JobStatus.IN_QUEUE,
            policy=self._submission.policy,
            webhook=self._submission.webhook,
            submitted_at=now,
            started_at=None,
            finished_at=None,
            attempt=0,
            retries=0,
            worker_id=None,
            error=None,
            delivered=0,
            chunk_count=0,
        )

    def _row(self, job: Job, turn: int) -> dict[str, Any]:
        return {
            "id": job.id,
            "endpoint": job.endpoint,
            "owner": job.owner,
            "status": job.status,
            "turn": turn,
            "deadline": job.submitted_at + job.policy.ttl,
            "execution_timeout": job.policy.execution_timeout,
            "ttl": job.policy.ttl,
            "low_priority": job.policy.low_priority,
            "retention": self._retention,
            "submitted_at": job.submitted_at,
            "attempt": 0,
            "retries": 0,
            "webhook": job.webhook,
            "chunk_count": 0,
            "delivered": 0,
            "offered": False,
            "input_bytes": len(self._body),
            "idempotency_key": self._submission.idempotency_key,
            "fingerprint": self._submission.fingerprint,
        }


def _ordered_uuid(now: int) -> uuid.UUID:
    """A UUID of version 7: the time in front, then 74 random bits.

    New jobs are then neighbours in every index, where a random id would change another page for each of them.
    """
    number = now << 80 | secrets.randbits(80)
    return uuid.UUID(int=number & ~(0xF << 76 | 0x3 << 62) | 0x7 << 76 | 0x2 << 62)


def turn_of(transaction: Transaction, now: int, policy: JobPolicy) -> int:
    """Where a job stands in line: a low-priority one as if it had come half its ttl later.

    So it waits for all normal jobs there are, in order among its like, and yet gets its turn before it expires.
    """
    turn = transaction.next_turn(now)
    return turn + policy.ttl * SECOND // 2 if policy.low_priority else turn


def check_room(transaction: Transaction, input_bytes: int, limits: tuple[int, int]) -> None:
    """Raises `QueueFull` if a job with an input of this size may not wait as well."""
    count, size = transaction.waiting()
    if count + 1 > limits[0]:
        raise QueueFull(f"The queue is full: {limits[0]} jobs are waiting. Please try again later.")
    if size + input_bytes > limits[1]:
        raise QueueFull(f"The queue is full: jobs with {limits[1]} bytes are waiting. Please try again later.")


def remove(transaction: Transaction, ids: list[str]) -> None:
    """Forget jobs that have ended, and all that belongs to them."""
    for column in (chunks.c.job_id, inputs.c.job_id, jobs.c.id):
        transaction.execute(delete(column.table).where(column.in_(ids)))
