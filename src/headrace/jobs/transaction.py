"""One transaction of the job store: changes, which jobs they touched, and the counters that go with them."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, CursorResult, Executable, bindparam, func, insert, select, update

from headrace.jobs.tables import counters
from headrace.jobs.types import JobStatus

_NAMES = tuple(column.name for column in counters.columns if column.name != "endpoint")
_ADD = (
    update(counters)
    .where(counters.c.endpoint == bindparam("which"))
    .values({name: counters.c[name] + bindparam(f"add_{name}") for name in _NAMES})
)
_FIRST = insert(counters)
_WAITING = select(
    func.coalesce(func.sum(counters.c.in_queue), 0), func.coalesce(func.sum(counters.c.in_queue_bytes), 0)
)


@dataclass(slots=True)
class Changes:
    """What a transaction has done that somebody may be waiting for.

    `ids` are the jobs it touched and `ended` those of them that have ended or are gone; `queued` says that one waits to
    be run, `calls` that a webhook is to be called.
    """

    ids: set[str] = field(default_factory=set)
    ended: set[str] = field(default_factory=set)
    queued: bool = False
    calls: bool = False


class Turns:
    """Gives out places in the queue: the time in microseconds, but never the same or an earlier one twice."""

    def __init__(self, last: int) -> None:
        self._last = last

    def next(self, now: int) -> int:
        """`now` in milliseconds."""
        self._last = max(self._last + 1, now * 1000)
        return self._last


class Transaction:
    """Handed to every operation of the writer; lives for one group of them. Only in the writer's thread."""

    def __init__(self, connection: Connection, turns: Turns) -> None:
        self._connection = connection
        self._turns = turns
        self._deltas: defaultdict[str, Counter[str]] = defaultdict(Counter)
        self._waiting_before: tuple[int, int] | None = None
        self.changes = Changes()

    def execute(
        self, statement: Executable, values: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None
    ) -> CursorResult[Any]:
        return self._connection.execute(statement, values)  # type: ignore[return-value]

    def repeat(self, statement: str, times: int) -> None:
        """Run a statement that takes and returns nothing, past all layers of SQLAlchemy."""
        cursor = self._connection.connection.cursor()
        try:
            for _ in range(times):
                cursor.execute(statement)
        finally:
            cursor.close()

    def next_turn(self, now: int) -> int:
        return self._turns.next(now)

    def queued(self, job_id: str, endpoint: str, input_bytes: int) -> None:
        """A job was submitted."""
        self.changes.ids.add(job_id)
        self.changes.queued = True
        self._deltas[endpoint].update(in_queue=1, in_queue_bytes=input_bytes)

    def moved(self, job_id: str, endpoint: str, start: JobStatus, end: JobStatus, input_bytes: int) -> None:
        """A job went from one state to another."""
        self.changes.ids.add(job_id)
        if end.terminal:
            self.changes.ended.add(job_id)
        delta = self._deltas[endpoint]
        if not start.terminal:
            delta[start.lower()] -= 1
        delta[end.lower()] += 1
        if start is JobStatus.IN_QUEUE:
            delta["in_queue_bytes"] -= input_bytes
        if end is JobStatus.IN_QUEUE:
            self.changes.queued = True
            delta["in_queue_bytes"] += input_bytes

    def retried(self, endpoint: str) -> None:
        """A job was dispatched again by itself."""
        self._deltas[endpoint]["retried"] += 1

    def waiting(self) -> tuple[int, int]:
        """How many jobs wait in the whole store, and how many bytes of input they hold."""
        if self._waiting_before is None:
            totals: list[Any] = list(self.execute(_WAITING).one())
            self._waiting_before = int(totals[0]), int(totals[1])
        deltas = self._deltas.values()
        return (
            self._waiting_before[0] + sum(delta["in_queue"] for delta in deltas),
            self._waiting_before[1] + sum(delta["in_queue_bytes"] for delta in deltas),
        )

    def finish(self, announce: Callable[[Connection, Changes], None]) -> None:
        """Write the counters and tell other servers; the commit follows.

        The counters come last and in one order: their rows are what transactions of different servers meet at.
        """
        for endpoint, delta in sorted(self._deltas.items()):
            added = self.execute(_ADD, {"which": endpoint, **{f"add_{name}": delta[name] for name in _NAMES}})
            if added.rowcount == 0:
                self.execute(_FIRST, {"endpoint": endpoint, **{name: delta[name] for name in _NAMES}})
        if self.changes.ids:
            announce(self._connection, self.changes)
