"""Changing the state of jobs. Every change is a compare-and-set: the statement that moves a job names the state it
leaves, and a worker's also the attempt. Whoever comes second changes nothing and is told so.

All functions run in the writer's thread, within a transaction; `now` is in milliseconds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from sqlalchemy import ColumnElement, Row, bindparam, delete, exists, insert, select, update
from sqlalchemy.sql.dml import ReturningUpdate

from headrace.jobs import outbox
from headrace.jobs.errors import WrongState
from headrace.jobs.records import JOB_COLUMNS, job_of, visible
from headrace.jobs.submitting import check_room, turn_of
from headrace.jobs.tables import chunks, inputs, jobs, workers
from headrace.jobs.transaction import Transaction
from headrace.jobs.types import MOST_RETRIES, TRANSITIONS, Job, JobStatus, Scope

LOST_TWICE = f"job timed out after {MOST_RETRIES} retries"
LOST_IN_STREAM = "the worker was lost after a part of the stream had been delivered"
EXECUTION_TIMEOUT = "executionTimeout exceeded"
TTL_EXPIRED = "job TTL expired"


def _move(start: JobStatus, end: JobStatus, *conditions: ColumnElement[bool], **values: Any) -> ReturningUpdate[Any]:
    """The UPDATE of one move of the table; any other cannot be made. It returns the columns of `_MOVED`."""
    if end not in TRANSITIONS[start]:
        raise AssertionError(f"no job goes from {start} to {end}")
    if end.terminal:
        values |= {"finished_at": bindparam("now"), "deadline": bindparam("now") + jobs.c.retention}
    statement = update(jobs).where(jobs.c.status == start, *conditions).values(status=end, **values)
    return statement.returning(*_MOVED)


_MOVED = (*JOB_COLUMNS, jobs.c.input_bytes)
_THIS = jobs.c.id == bindparam("job_id")
_THESE = jobs.c.id.in_(bindparam("ids", expanding=True))
_THIS_ATTEMPT = (_THIS, jobs.c.attempt == bindparam("of_attempt"))
_ANEW: dict[str, Any] = {
    "started_at": None,
    "finished_at": None,
    "worker_id": None,
    "error": None,
    "chunk_count": 0,
    "delivered": 0,
    "offered": False,
}

_QUEUED, _RUNNING = JobStatus.IN_QUEUE, JobStatus.IN_PROGRESS
_START = _move(
    _QUEUED, _RUNNING, _THESE, attempt=jobs.c.attempt + 1, started_at=bindparam("now"), worker_id=bindparam("worker")
)
_END = {
    end: _move(_RUNNING, end, *_THIS_ATTEMPT, error=bindparam("reason"), chunk_count=bindparam("count"))
    for end in (JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.TIMED_OUT)
}
_GIVE_BACK = _move(_RUNNING, _QUEUED, *_THIS_ATTEMPT, retries=jobs.c.retries + bindparam("lost"), **_ANEW)
_GIVE_UP = _move(_RUNNING, JobStatus.FAILED, *_THIS_ATTEMPT, error=bindparam("reason"))
_EXPIRE = {start: _move(start, JobStatus.TIMED_OUT, _THESE, error=TTL_EXPIRED) for start in (_QUEUED, _RUNNING)}
_CANCEL = {
    start: _move(start, JobStatus.CANCELLED, _THESE, chunk_count=jobs.c.delivered) for start in (_QUEUED, _RUNNING)
}
_RETRY = {
    start: _move(
        start,
        _QUEUED,
        _THESE,
        retries=0,
        turn=bindparam("next_turn"),
        submitted_at=bindparam("now"),
        deadline=bindparam("now") + jobs.c.ttl,
        **_ANEW,
    )
    for start in (JobStatus.FAILED, JobStatus.TIMED_OUT)
}

_NEXT = (
    select(jobs.c.id)
    .where(
        jobs.c.status == _QUEUED,
        jobs.c.endpoint == bindparam("endpoint"),
        jobs.c.deadline > bindparam("now"),
        exists().where(workers.c.id == bindparam("worker"), workers.c.lease_until > bindparam("now")),
    )
    .order_by(jobs.c.turn, jobs.c.id)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True, of=jobs)
)
_PURGEABLE = (
    select(jobs.c.id)
    .where(
        jobs.c.status == _QUEUED,
        jobs.c.endpoint == bindparam("endpoint"),
        jobs.c.owner == bindparam("owner"),
        jobs.c.submitted_at <= bindparam("until"),
    )
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_FIND = select(*_MOVED).where(_THIS).with_for_update()
_INPUTS = select(inputs).where(inputs.c.job_id.in_(bindparam("ids", expanding=True)))
_GROW = (
    update(jobs)
    .where(*_THIS_ATTEMPT, jobs.c.status == _RUNNING, jobs.c.chunk_count == bindparam("first"))
    .values(chunk_count=bindparam("first") + bindparam("more"))
)
_OFFER = update(jobs).where(*_THIS_ATTEMPT, jobs.c.status == _RUNNING).values(offered=True)
_DELIVER = (
    update(jobs)
    .where(*_THIS_ATTEMPT, jobs.c.delivered == bindparam("first"))
    .values(delivered=bindparam("first") + bindparam("more"))
)
_SET_DEADLINE = update(jobs).where(_THIS).values(deadline=bindparam("until"))
_ADD_CHUNKS = insert(chunks)
_DROP_CHUNKS = delete(chunks).where(chunks.c.job_id.in_(bindparam("ids", expanding=True)))


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a worker may change as long as it is the latest, and running: one dispatch of a job."""

    job_id: str
    number: int

    @property
    def key(self) -> dict[str, Any]:
        return {"job_id": self.job_id, "of_attempt": self.number}


def start_next(
    transaction: Transaction, endpoint: str, worker_id: str, limit: int, now: int
) -> list[tuple[Job, dict[str, Any]]]:
    """Give a worker the jobs whose turn it is, with their inputs. It gets none while its lease has run out."""
    values = {"endpoint": endpoint, "now": now, "limit": limit, "worker": worker_id}
    picked = transaction.execute(_NEXT, values).scalars().all()
    if not picked:
        return []
    rows = _apply(transaction, _QUEUED, _START, {"ids": picked, "now": now, "worker": worker_id})
    bodies = {row.job_id: row.body for row in transaction.execute(_INPUTS, {"ids": picked})}
    started = {row.id: (job_of(row), msgspec.json.decode(bodies[row.id])) for row in rows}
    return [started[job_id] for job_id in picked if job_id in started]


def add_chunks(transaction: Transaction, attempt: Attempt, first: int, bodies: Sequence[bytes]) -> bool:
    """Append to the output. False if the attempt is no longer the one that runs."""
    grown = transaction.execute(_GROW, {**attempt.key, "first": first, "more": len(bodies)})
    if grown.rowcount == 0:
        row = transaction.execute(_FIND, {"job_id": attempt.job_id}).one_or_none()
        # Added before, by a commit that was taken to have failed?
        return row is not None and _runs(row, attempt) and row.chunk_count == first + len(bodies)
    _insert_chunks(transaction, attempt.job_id, first, bodies)
    transaction.changes.ids.add(attempt.job_id)
    return True


def end(
    transaction: Transaction,
    attempt: Attempt,
    status: JobStatus,
    now: int,
    *,
    error: str | None,
    first: int,
    bodies: Sequence[bytes],
) -> bool:
    """Record how an attempt ended, with the chunks not yet added. False if it is no longer the one that runs."""
    values = {**attempt.key, "now": now, "reason": error and _storable(error), "count": first + len(bodies)}
    if not _apply(transaction, _RUNNING, _END[status], values):
        return False
    _insert_chunks(transaction, attempt.job_id, first, bodies)
    return True


def abandon(transaction: Transaction, attempt: Attempt, now: int, *, lost: bool) -> None:
    """An attempt ends without a result: its worker is `lost`, or stops in good order.

    The job waits again, at its old place and with an empty output. It FAILS if a part of its stream was delivered,
    which another attempt could not continue, or if its worker was lost more often than is forgiven.
    """
    row = transaction.execute(_FIND, {"job_id": attempt.job_id}).one_or_none()
    if row is None or not _runs(row, attempt):
        return
    if row.offered or row.delivered:
        _apply(transaction, _RUNNING, _GIVE_UP, {**attempt.key, "now": now, "reason": LOST_IN_STREAM})
    elif lost and row.retries >= MOST_RETRIES:
        _apply(transaction, _RUNNING, _GIVE_UP, {**attempt.key, "now": now, "reason": LOST_TWICE})
    else:
        _apply(transaction, _RUNNING, _GIVE_BACK, {**attempt.key, "lost": int(lost)})
        _drop_chunks(transaction, [attempt.job_id])
        if lost:
            transaction.retried(row.endpoint)


def cancel(transaction: Transaction, scope: Scope, job_id: str, now: int) -> Job:
    """The job as it is then: CANCELLED, or as it had ended before. Raises `JobNotFound`."""
    row = _find(transaction, scope, job_id, now)
    if row.status.terminal:
        return job_of(row)
    (cancelled,) = _apply(transaction, row.status, _CANCEL[row.status], {"ids": [job_id], "now": now})
    _drop_chunks(transaction, [job_id])
    return job_of(cancelled)


def retry(transaction: Transaction, scope: Scope, job_id: str, now: int, limits: tuple[int, int]) -> Job:
    """Queue a FAILED or TIMED_OUT job anew. `limits`: the most jobs, and bytes of input, that may wait.

    Raises `JobNotFound`, `WrongState` and `QueueFull`.
    """
    row = _find(transaction, scope, job_id, now)
    if row.status not in _RETRY:
        raise WrongState(f"Only a FAILED or TIMED_OUT job can be retried; this one is {row.status}.")
    check_room(transaction, row.input_bytes, limits)
    turn = turn_of(transaction, now, job_of(row).policy)
    (queued,) = _apply(transaction, row.status, _RETRY[row.status], {"ids": [job_id], "now": now, "next_turn": turn})
    _drop_chunks(transaction, [job_id])
    outbox.drop(transaction, [job_id])
    return job_of(queued)


def purge(transaction: Transaction, scope: Scope, until: int, limit: int, now: int) -> int:
    """Cancel waiting jobs that were submitted up to `until`, `limit` at most; how many it were."""
    values = {"endpoint": scope.endpoint, "owner": scope.owner, "until": until, "limit": limit}
    picked = transaction.execute(_PURGEABLE, values).scalars().all()
    return len(_apply(transaction, _QUEUED, _CANCEL[_QUEUED], {"ids": picked, "now": now})) if picked else 0


def expire(transaction: Transaction, ids: Mapping[JobStatus, Sequence[str]], now: int) -> None:
    """The ttl of these live jobs has run out; `ids` by the state they are in."""
    for start, statement in _EXPIRE.items():
        if ids.get(start):
            _apply(transaction, start, statement, {"ids": ids[start], "now": now})


def offer(transaction: Transaction, attempt: Attempt) -> bool:
    """From now on a reader may have seen something of this attempt's output. False if it does not run any more."""
    return transaction.execute(_OFFER, attempt.key).rowcount == 1


def deliver(transaction: Transaction, attempt: Attempt, first: int, number: int) -> None:
    """A reader has got this many chunks from `first` on. Without effect if another has got them meanwhile."""
    transaction.execute(_DELIVER, {**attempt.key, "first": first, "more": number})


def expire_in(transaction: Transaction, scope: Scope, job_id: str, remaining: int, now: int) -> Job:
    """Replace what remains of a job's life, or of its result's. Raises `JobNotFound`."""
    row = _find(transaction, scope, job_id, now)
    transaction.execute(_SET_DEADLINE, {"job_id": job_id, "until": now + remaining})
    transaction.changes.ids.add(job_id)
    return job_of(row)


def _find(transaction: Transaction, scope: Scope, job_id: str, now: int) -> Row[Any]:
    return visible(transaction.execute(_FIND, {"job_id": job_id}).one_or_none(), scope, job_id, now)


def _storable(message: str) -> str:
    """What a message quotes may hold characters that a database does not take for text: NUL, half a surrogate pair."""
    return message.encode(errors="replace").decode().replace("\0", "\N{REPLACEMENT CHARACTER}")


def _runs(row: Row[Any], attempt: Attempt) -> bool:
    return row.status is _RUNNING and row.attempt == attempt.number


def _apply(
    transaction: Transaction, start: JobStatus, statement: ReturningUpdate[Any], values: Mapping[str, Any]
) -> Sequence[Row[Any]]:
    """Run a move and everything that belongs to it; the rows that were moved, as they are now."""
    rows = transaction.execute(statement, values).all()
    for row in rows:
        transaction.moved(row.id, row.endpoint, start, row.status, row.input_bytes)
    to_call = [row.id for row in rows if row.status.terminal and row.webhook is not None]
    if to_call:
        outbox.add(transaction, to_call, values["now"])
    return rows


def _insert_chunks(transaction: Transaction, job_id: str, first: int, bodies: Sequence[bytes]) -> None:
    if bodies:
        rows = [{"job_id": job_id, "place": place, "body": body} for place, body in enumerate(bodies, first)]
        transaction.execute(_ADD_CHUNKS, rows)


def _drop_chunks(transaction: Transaction, ids: Sequence[str]) -> None:
    transaction.execute(_DROP_CHUNKS, {"ids": ids})
