"""The job store as the rest of the package sees it: changes and readings that are awaited, and news of changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Concatenate, ParamSpec, TypeVar

from sqlalchemy import Connection
from sqlalchemy.exc import SQLAlchemyError

from headrace.config.jobs import JobsConfig
from headrace.core.errors import StartupError
from headrace.jobs.database import Database, last_turn, open_database
from headrace.jobs.errors import StoreUnavailable
from headrace.jobs.transaction import Changes, Transaction, Turns
from headrace.jobs.writer import Writer
from headrace.service.workers import Workers

P = ParamSpec("P")
T = TypeVar("T")

Listener = Callable[[Changes], None]
"""Called on the event loop after a commit."""


@dataclass(frozen=True, slots=True)
class _Open:
    database: Database
    writer: Writer
    readers: Workers


class Store:
    """Lives on one event loop. Until it is open, whatever is asked of it raises `StoreUnavailable`."""

    def __init__(self, config: JobsConfig) -> None:
        self._config = config
        self._opened: _Open | None = None
        self._reason = "The job store is being opened."

    async def open(self, on_change: Listener, on_remote_change: Listener) -> None:
        """The listeners hear of changes by this server, and by others. Raises `StartupError`."""
        loop = asyncio.get_running_loop()
        try:
            database = await asyncio.to_thread(open_database, self._config)
        except StartupError as problem:
            self._reason = problem.message
            raise
        turns = Turns(await asyncio.to_thread(last_turn, database.reader))
        writer = Writer(database.writer, turns, announce=database.announce, committed=on_change)
        database.listen(lambda changes: _call_soon(loop, on_remote_change, changes))
        self._opened = _Open(database, writer, Workers("jobs-reader"))

    @property
    def shared(self) -> bool:
        """Whether other servers may use it at the same time."""
        return self._parts.database.shared

    async def write(
        self, operation: Callable[Concatenate[Transaction, P], T], /, *args: P.args, **kwargs: P.kwargs
    ) -> T:
        """What `operation(transaction, ...)` returns, once it is on stable storage.

        Raises what it raises, and `StoreUnavailable` if the store cannot be written.
        """
        return await self._parts.writer.run(lambda transaction: operation(transaction, *args, **kwargs))

    async def read(self, query: Callable[Concatenate[Connection, P], T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """What `query(connection, ...)` returns. Raises what it raises, and `StoreUnavailable`."""
        parts = self._parts
        return await parts.readers.run(partial(_read, parts.database, query, *args, **kwargs))

    async def tidy(self) -> None:
        """Give space that is not needed any more back to the file system. Raises `StoreUnavailable`."""
        while await self.write(self._parts.database.tidy):
            pass

    async def keep_up(self) -> None:
        """Do what makes commits slow while nobody waits for it."""
        await asyncio.to_thread(self._parts.database.keep_up)

    async def close(self) -> None:
        """Finish what was begun and close the database. Any number of calls."""
        if self._opened is None:
            return
        parts, self._opened = self._opened, None
        self._reason = "The server is being stopped."
        await parts.writer.close()
        parts.readers.close()
        await asyncio.to_thread(parts.database.close)

    @property
    def _parts(self) -> _Open:
        if self._opened is None:
            raise StoreUnavailable(self._reason)
        return self._opened


def _read(database: Database, query: Callable[Concatenate[Connection, P], T], *args: P.args, **kwargs: P.kwargs) -> T:
    try:
        with database.reader.connect() as connection:
            return query(connection, *args, **kwargs)
    except SQLAlchemyError as problem:
        raise StoreUnavailable("The job store cannot be read at the moment.") from problem


def _call_soon(loop: asyncio.AbstractEventLoop, listener: Listener, changes: Changes) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(listener, changes)
