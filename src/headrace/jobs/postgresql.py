"""The shared job store: a PostgreSQL database, and its notifications by which servers hear of each other's changes."""

from __future__ import annotations

import json
import logging
import threading
import uuid
from itertools import compress

from sqlalchemy import Connection, Engine, create_engine, func, select
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from headrace.core.errors import ConfigError
from headrace.jobs.database import OnRemoteChange, make_tables
from headrace.jobs.errors import StoreUnusable
from headrace.jobs.transaction import Changes, Transaction

try:
    import psycopg
except ImportError:
    psycopg = None  # type: ignore[assignment]

log = logging.getLogger(__name__)

CHANNEL = "headrace_jobs"

_IDS_PER_MESSAGE = 100
"""A notification carries 8000 bytes at most; an id takes 64 at most, 71 with what separates it."""

_SETUP_LOCK = 0x68656164
"""Servers that start together make the tables one after the other."""

_LISTEN_SECONDS = 0.5
_RECONNECT_SECONDS = 2.0


class PostgresqlDatabase:
    """The database at `url`. Raises `ConfigError` without the driver, `StoreUnusable` if it cannot be used."""

    shared = True

    def __init__(self, url: str) -> None:
        if psycopg is None:
            raise ConfigError("--jobs-url needs the PostgreSQL driver: pip install 'headrace[postgres]'.")
        self._url = make_url(url).set(drivername="postgresql+psycopg")
        self._server = uuid.uuid4().hex
        self._closed = threading.Event()
        self._listener: threading.Thread | None = None
        self.writer = self._engine(pool_size=1, isolation_level="READ COMMITTED")
        self.reader = self._engine(pool_size=4, isolation_level="REPEATABLE READ")
        shown = self._url.render_as_string(hide_password=True)
        try:
            with self.writer.begin() as connection:
                connection.execute(select(func.pg_advisory_xact_lock(_SETUP_LOCK)))
                make_tables(connection, shown)
        except StoreUnusable:
            self.close()
            raise
        except SQLAlchemyError as problem:
            self.close()
            raise StoreUnusable(f"The job store {shown} cannot be opened: {_reason(problem)}") from None

    def announce(self, connection: Connection, changes: Changes) -> None:
        ids = sorted(changes.ids)
        for first in range(0, len(ids), _IDS_PER_MESSAGE):
            some = ids[first : first + _IDS_PER_MESSAGE]
            ended = [int(job_id in changes.ended) for job_id in some]
            message = json.dumps([self._server, changes.queued, some, ended])
            connection.execute(select(func.pg_notify(CHANNEL, message)))

    def listen(self, on_change: OnRemoteChange) -> None:
        self._listener = threading.Thread(target=self._listen, args=[on_change], name="jobs-listener", daemon=True)
        self._listener.start()

    def tidy(self, transaction: Transaction) -> bool:
        """The database server does it by itself."""
        return False

    def keep_up(self) -> None:
        """The database server does that as well."""

    def close(self) -> None:
        self._closed.set()
        if self._listener is not None:
            self._listener.join()
        self.reader.dispose()
        self.writer.dispose()

    def _engine(self, *, pool_size: int, isolation_level: str) -> Engine:
        return create_engine(
            self._url,
            pool_size=pool_size,
            max_overflow=0,
            pool_pre_ping=True,
            hide_parameters=True,
            isolation_level=isolation_level,  # type: ignore[arg-type]
            connect_args={"connect_timeout": 5},
        )

    def _listen(self, on_change: OnRemoteChange) -> None:
        """What is announced while the connection is away is not heard; the heartbeat makes up for it."""
        plain = self._url.set(drivername="postgresql").render_as_string(hide_password=False)
        while not self._closed.is_set():
            try:
                with psycopg.connect(plain, autocommit=True, connect_timeout=5) as connection:
                    connection.execute(f"LISTEN {CHANNEL}")
                    while not self._closed.is_set():
                        for notice in connection.notifies(timeout=_LISTEN_SECONDS):
                            server, queued, ids, ended = json.loads(notice.payload)
                            if server != self._server:
                                on_change(Changes(set(ids), set(compress(ids, ended)), queued))
                            if self._closed.is_set():
                                break
            except psycopg.Error as problem:
                log.warning("Other servers' changes of jobs are not heard at the moment: %s", str(problem).strip())
                self._closed.wait(_RECONNECT_SECONDS)


def _reason(problem: SQLAlchemyError) -> str:
    return str(problem.__cause__ or problem).strip()
