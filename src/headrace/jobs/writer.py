"""The one thread that changes the store. What waits while a commit reaches the disk goes into the next one together."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from headrace.core.errors import HeadraceError
from headrace.jobs.errors import QueueStopping, StoreUnavailable
from headrace.jobs.transaction import Changes, Transaction, Turns

T = TypeVar("T")

log = logging.getLogger(__name__)

_LARGEST_GROUP = 256
"""Operations in one transaction: bounds how long the first of them waits for the last."""

_TRIES = 3
"""For an operation that met another server's transaction (a deadlock, or the same new row twice)."""


@dataclass(frozen=True, slots=True)
class _Operation:
    run: Callable[[Transaction], Any]
    outcome: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Committed:
    """A transaction that has ended: each operation with its result or its exception, and what was changed."""

    outcomes: list[tuple[_Operation, Any]]
    changes: Changes


class Writer:
    """Runs operations in order, in groups: one transaction, one commit, for as many as are waiting.

    An operation gets a `Transaction` and may raise a `HeadraceError`, but only before it has changed anything. It is
    done when the commit is: until then nobody hears of it. `announce` tells other servers, within the transaction;
    `committed` is called on the event loop afterwards.
    """

    def __init__(
        self,
        engine: Engine,
        turns: Turns,
        *,
        announce: Callable[[Connection, Changes], None],
        committed: Callable[[Changes], None],
    ) -> None:
        self._engine = engine
        self._turns = turns
        self._announce = announce
        self._committed = committed
        self._loop = asyncio.get_running_loop()
        self._waiting: SimpleQueue[_Operation | None] = SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="jobs-writer", daemon=True)
        self._thread.start()

    async def run(self, operation: Callable[[Transaction], T]) -> T:
        """What `operation` returns, once it is on stable storage. If the caller is cancelled, it may still happen.

        Raises `StoreUnavailable` if the store cannot be written; then nothing has been changed, except that a database
        server that went away in the middle of a commit may have finished it.
        """
        if self._closed:
            raise QueueStopping("The job queue is closed.")
        outcome: asyncio.Future[T] = self._loop.create_future()
        self._waiting.put(_Operation(operation, outcome))
        return await outcome

    async def close(self) -> None:
        """Finish what is waiting, then end the thread."""
        self._closed = True
        self._waiting.put(None)
        await asyncio.to_thread(self._thread.join)

    def _work(self) -> None:
        while group := self._next_group():
            for part in self._commit(group):
                try:
                    self._loop.call_soon_threadsafe(self._tell, part)
                except RuntimeError:
                    log.debug("The event loop has ended; job operations go unheard")

    def _next_group(self) -> list[_Operation]:
        """Everything that waits; at least one operation. Empty when the writer was closed."""
        group: list[_Operation] = []
        try:
            item = self._waiting.get()
            while item is not None:
                group.append(item)
                if len(group) == _LARGEST_GROUP:
                    return group
                item = self._waiting.get_nowait()
        except Empty:
            return group
        if group:
            self._waiting.put(None)  # the end was seen, but this group comes before it
        return group

    def _commit(self, group: list[_Operation]) -> list[_Committed]:
        """What came of the operations: of all together, or if that is impossible, of each alone."""
        problem: Exception | None = None
        for _ in range(_TRIES if len(group) == 1 else 1):
            try:
                return [self._transact(group)]
            except Exception as raised:
                problem = raised
                if _connection_lost(raised):
                    break  # what was being committed may have been: whoever asked has to look
        if len(group) == 1 or _connection_lost(problem):
            log.error("%d changes of jobs could not be stored: %s", len(group), _reason(problem))
            failure = _failure(problem)
            return [_Committed([(operation, failure) for operation in group], Changes())]
        return [part for operation in group for part in self._commit([operation])]

    def _transact(self, group: list[_Operation]) -> _Committed:
        outcomes: list[tuple[_Operation, Any]] = []
        with self._engine.begin() as connection:
            transaction = Transaction(connection, self._turns)
            for operation in group:
                try:
                    outcomes.append((operation, operation.run(transaction)))
                except HeadraceError as refusal:
                    outcomes.append((operation, refusal))
            transaction.finish(self._announce)
        return _Committed(outcomes, transaction.changes)

    def _tell(self, part: _Committed) -> None:
        for operation, outcome in part.outcomes:
            if operation.outcome.done():
                continue  # the caller was cancelled
            if isinstance(outcome, Exception):
                operation.outcome.set_exception(outcome)
            else:
                operation.outcome.set_result(outcome)
        if part.changes.ids:
            self._committed(part.changes)


def _connection_lost(problem: Exception | None) -> bool:
    return isinstance(problem, DBAPIError) and problem.connection_invalidated


def _failure(problem: Exception | None) -> Exception:
    """What the caller is told."""
    if isinstance(problem, SQLAlchemyError):
        return StoreUnavailable("The job store cannot be written at the moment.")
    return problem or AssertionError("no attempt was made")


def _reason(problem: Exception | None) -> str:
    """Without the statement and its values: they hold what users sent."""
    return str(problem.orig).strip() if isinstance(problem, DBAPIError) else repr(problem)
