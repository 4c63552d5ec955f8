"""Where jobs are kept: one SQLite file, or a PostgreSQL database that several servers share."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from sqlalchemy import Connection, Engine, func, insert, select

from headrace.config.jobs import JobsConfig
from headrace.jobs.errors import StoreUnusable
from headrace.jobs.tables import SCHEMA_VERSION, jobs, metadata, schema
from headrace.jobs.transaction import Changes, Transaction

OnRemoteChange = Callable[[Changes], None]
"""Called from a thread with what another server has changed."""


class Database(Protocol):
    """Opened when made, which may take a while: not on an event loop. The constructor raises `StartupError`."""

    writer: Engine
    """For the one thread that changes things."""

    reader: Engine
    """For any number of threads; each transaction sees the store at one moment."""

    shared: bool
    """Whether other servers may use it at the same time."""

    def announce(self, connection: Connection, changes: Changes) -> None:
        """Tell the other servers of the changes when this transaction is committed."""
        ...

    def listen(self, on_change: OnRemoteChange) -> None:
        """Hear what other servers announce, until `close`."""
        ...

    def tidy(self, transaction: Transaction) -> bool:
        """Give some of the space that is not needed any more back to the file system. True if there is more of it."""
        ...

    def keep_up(self) -> None:
        """Work that commits would have to wait for if it were left to them. Called often, from a thread."""
        ...

    def close(self) -> None: ...


def open_database(config: JobsConfig) -> Database:
    """Raises `StoreInUse` and `StoreUnusable`."""
    if config.jobs_url is not None:
        from headrace.jobs.postgresql import PostgresqlDatabase

        return PostgresqlDatabase(config.jobs_url)
    from headrace.jobs.sqlite import SqliteDatabase

    return SqliteDatabase(config.jobs_dir or state_folder())


def state_folder() -> Path:
    """`headrace/jobs` in the user's state directory."""
    home = os.environ.get("XDG_STATE_HOME")
    return Path(home if home else Path.home() / ".local" / "state") / "headrace" / "jobs"


def last_turn(engine: Engine) -> int:
    """A place in the queue behind all that were given out before, in microseconds."""
    with engine.connect() as connection:
        latest = connection.execute(select(func.coalesce(func.max(jobs.c.submitted_at), 0))).scalar_one()
    return (latest + 1) * 1000


def make_tables(connection: Connection, where: str) -> None:
    """The tables, where they are missing. Raises `StoreUnusable` if they are those of another version."""
    metadata.create_all(connection)
    version = connection.execute(select(schema.c.version)).scalar_one_or_none()
    if version is None:
        connection.execute(insert(schema), {"version": SCHEMA_VERSION})
    elif version != SCHEMA_VERSION:
        raise StoreUnusable(
            f"The job store {where} was written by another version of Headrace (schema {version}, this one uses "
            f"{SCHEMA_VERSION})."
        )
