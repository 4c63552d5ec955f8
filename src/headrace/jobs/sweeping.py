"""What becomes due by itself: the end of a job's ttl, of a result's retention, of a worker's lease."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass

from sqlalchemy import bindparam, delete, exists, insert, select, update

from headrace.jobs import moves
from headrace.jobs.submitting import remove
from headrace.jobs.tables import ANY_ENDPOINT, jobs, webhooks, workers
from headrace.jobs.transaction import Transaction
from headrace.jobs.types import JobStatus

_SLICE = 500
"""Jobs in one operation, so that nobody waits long for a sweep."""

_CALL_PENDING = exists().where(webhooks.c.job_id == jobs.c.id)
_DUE = (
    select(jobs.c.id, jobs.c.attempt, jobs.c.status)
    .where(jobs.c.deadline <= bindparam("now"), ~_CALL_PENDING)
    .order_by(jobs.c.deadline)
    .limit(_SLICE)
    .with_for_update(skip_locked=True, of=jobs)
)
_RENEW = update(workers).where(workers.c.id == bindparam("worker")).values(lease_until=bindparam("until"))
_ORPHANS = (
    select(jobs.c.id, jobs.c.attempt)
    .where(
        ANY_ENDPOINT,
        jobs.c.status == JobStatus.IN_PROGRESS,
        jobs.c.worker_id.not_in(select(workers.c.id).where(workers.c.lease_until > bindparam("now"))),
    )
    .limit(_SLICE)
    .with_for_update(skip_locked=True, of=jobs)
)


@dataclass(frozen=True, slots=True)
class Swept:
    """`expired` are the attempts that were running when their job's ttl ended; `more`: there may be more to sweep."""

    expired: list[moves.Attempt]
    more: bool


def sweep(transaction: Transaction, now: int) -> Swept:
    """Time out live jobs, and forget old results once their webhook is settled."""
    due: defaultdict[JobStatus, list[str]] = defaultdict(list)
    rows = transaction.execute(_DUE, {"now": now}).all()
    for row in rows:
        due[row.status].append(row.id)
    moves.expire(transaction, due, now)
    if ended := [job_id for status, ids in due.items() if status.terminal for job_id in ids]:
        remove(transaction, ended)
        transaction.changes.ids.update(ended)
        transaction.changes.ended.update(ended)
    running = [moves.Attempt(row.id, row.attempt) for row in rows if row.status is JobStatus.IN_PROGRESS]
    return Swept(running, more=len(rows) == _SLICE)


def renew_lease(transaction: Transaction, worker_id: str, until: int) -> None:
    """The worker lives."""
    if transaction.execute(_RENEW, {"worker": worker_id, "until": until}).rowcount == 0:
        transaction.execute(insert(workers), {"id": worker_id, "lease_until": until})


def end_lease(transaction: Transaction, worker_id: str) -> None:
    """The worker ends, and runs nothing any more."""
    transaction.execute(delete(workers).where(workers.c.id == worker_id))


def reap(transaction: Transaction, now: int) -> bool:
    """Apply the crash rule to jobs whose worker has let its lease run out. True if there may be more to do."""
    rows = transaction.execute(_ORPHANS, {"now": now}).all()
    for row in rows:
        moves.abandon(transaction, moves.Attempt(row.id, row.attempt), now, lost=True)
    transaction.execute(delete(workers).where(workers.c.lease_until <= now))
    return len(rows) == _SLICE


def take_over(transaction: Transaction) -> None:
    """Nobody else uses this store, so every worker it knows is gone."""
    transaction.execute(delete(workers))
