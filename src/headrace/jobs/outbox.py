"""Webhook calls that are still to be made: stored with the end of the job, in the same transaction."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import bindparam, delete, insert, select, update

from headrace.jobs.tables import webhooks
from headrace.jobs.transaction import Transaction

_DUE = (
    select(webhooks.c.job_id, webhooks.c.tries)
    .where(webhooks.c.due_at <= bindparam("now"))
    .order_by(webhooks.c.due_at)
    .limit(bindparam("limit"))
    .with_for_update(skip_locked=True)
)
_THIS = webhooks.c.job_id == bindparam("id_of_job")
_THIS_TRY = webhooks.c.tries == bindparam("number")
_TAKE = update(webhooks).where(_THIS).values(due_at=bindparam("until"), tries=webhooks.c.tries + 1)
_LATER = update(webhooks).where(_THIS, _THIS_TRY).values(due_at=bindparam("until"))
_DONE = delete(webhooks).where(_THIS, _THIS_TRY)


def add(transaction: Transaction, ids: Sequence[str], now: int) -> None:
    transaction.changes.calls = True
    transaction.execute(insert(webhooks), [{"job_id": job_id, "due_at": now, "tries": 0} for job_id in ids])


def drop(transaction: Transaction, ids: Sequence[str]) -> None:
    transaction.execute(delete(webhooks).where(webhooks.c.job_id.in_(ids)))


def take_due(transaction: Transaction, limit: int, until: int, now: int) -> list[tuple[str, int]]:
    """Calls to be made now, as (job id, number of the try). They are nobody else's before `until`."""
    due = transaction.execute(_DUE, {"now": now, "limit": limit}).all()
    if due:
        transaction.execute(_TAKE, [{"id_of_job": row.job_id, "until": until} for row in due])
    return [(row.job_id, row.tries + 1) for row in due]


def postpone(transaction: Transaction, job_id: str, tried: int, until: int) -> None:
    """Try number `tried` has failed; the next one is not before `until`."""
    transaction.execute(_LATER, {"id_of_job": job_id, "number": tried, "until": until})


def settle(transaction: Transaction, job_id: str, tried: int) -> None:
    """Try number `tried` was the last: it has succeeded, or it was the last one to be made."""
    transaction.execute(_DONE, {"id_of_job": job_id, "number": tried})
