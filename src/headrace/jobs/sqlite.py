"""The embedded job store: one SQLite file, used by one server at a time."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from sqlalchemy import Connection, Engine, create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from headrace.jobs.database import OnRemoteChange, make_tables
from headrace.jobs.errors import StoreInUse, StoreUnusable
from headrace.jobs.transaction import Changes, Transaction

FILE_NAME = "jobs.sqlite3"
LOCK_NAME = "lock"

_PAGES_AT_A_TIME = 500
"""Pages (of 4 KB) given back in one go: a few milliseconds of work."""

_PAGES_KEPT = 2500
"""Free pages that stay in the file: the next jobs will need them."""

_LONGEST_LOG = 16384
"""Pages after which a commit itself copies what is left of the write-ahead log into the file, and waits for the disk
twice. Nearly all of it has been copied in the background by then."""

_SETTINGS = (
    "PRAGMA auto_vacuum = INCREMENTAL",  # before the first table, or never
    "PRAGMA journal_mode = WAL",
    "PRAGMA synchronous = FULL",  # a commit is on the disk before it is answered
    "PRAGMA busy_timeout = 5000",
    f"PRAGMA wal_autocheckpoint = {_LONGEST_LOG}",
    f"PRAGMA journal_size_limit = {_LONGEST_LOG * 4096}",
    "PRAGMA cache_size = -32768",
)


class SqliteDatabase:
    """`jobs.sqlite3` in `folder`, readable by its owner only. The folder is locked as long as this is open.

    Raises `StoreInUse` if another server has it, `StoreUnusable` if it cannot be opened.
    """

    shared = False

    def __init__(self, folder: Path) -> None:
        path = folder / FILE_NAME
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = FileLock(folder / LOCK_NAME, timeout=0, mode=0o600, thread_local=False)
            self._lock.acquire()
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            path.chmod(0o600)
        except Timeout:
            raise StoreInUse(f"The jobs in {folder} belong to a server that runs already; see --jobs-dir.") from None
        except OSError as problem:
            raise StoreUnusable(f"The jobs in {folder} cannot be opened: {problem.strerror}.") from None
        self._copier = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._copying = threading.Lock()  # SQLite crashes if a connection is closed under a statement that runs
        self.writer = _engine(path, "BEGIN IMMEDIATE", pool_size=1)
        self.reader = _engine(path, "BEGIN", pool_size=4)
        try:
            with self.writer.begin() as connection:
                make_tables(connection, str(path))
        except StoreUnusable:
            self.close()
            raise
        except SQLAlchemyError as problem:
            self.close()
            raise StoreUnusable(f"The jobs in {path} cannot be opened: {problem.__cause__ or problem}.") from None

    def announce(self, connection: Connection, changes: Changes) -> None:
        """Nobody else is there."""

    def listen(self, on_change: OnRemoteChange) -> None:
        """Nobody else is there."""

    def tidy(self, transaction: Transaction) -> bool:
        free = transaction.execute(text("PRAGMA freelist_count")).scalar_one() - _PAGES_KEPT
        # Python's driver takes one step of this statement, and each step gives back one page.
        transaction.repeat("PRAGMA incremental_vacuum", max(0, min(free, _PAGES_AT_A_TIME)))
        return free > _PAGES_AT_A_TIME

    def keep_up(self) -> None:
        """Copy what was committed from the write-ahead log into the file, at nobody's expense."""
        # Errors, also that of a connection closed meanwhile: the next commits try it as well, and report.
        with self._copying, contextlib.suppress(sqlite3.Error):
            self._copier.execute("PRAGMA wal_checkpoint(PASSIVE)")

    def close(self) -> None:
        with self._copying:
            self._copier.close()
        self.reader.dispose()
        self.writer.dispose()
        self._lock.release()


def _engine(path: Path, begin: str, *, pool_size: int) -> Engine:
    engine = create_engine(f"sqlite+pysqlite:///{path}", pool_size=pool_size, max_overflow=0, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def configure(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # transactions begin where SQLAlchemy says, not where the driver guesses
        for setting in _SETTINGS:
            connection.execute(setting)

    @event.listens_for(engine, "begin")
    def start(connection: Connection) -> None:
        connection.exec_driver_sql(begin)

    return engine
