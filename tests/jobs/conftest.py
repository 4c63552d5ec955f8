"""Job stores of both kinds, empty for each test."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from headrace.config.jobs import JobsConfig
from headrace.jobs import types

MakeConfig = Callable[..., JobsConfig]

UNPRIVILEGED = "postgres"
"""PostgreSQL refuses to run as root; Debian's packages make this user."""


def postgresql_programs() -> Path | None:
    """The folder of `initdb` and `postgres`: on the path, or where Debian puts them, the latest version."""
    if found := shutil.which("initdb"):
        return Path(found).resolve().parent
    return max((path.parent for path in Path("/usr/lib/postgresql").glob("*/bin/initdb")), default=None)


@contextlib.contextmanager
def running_postgresql(programs: Path) -> Iterator[str]:
    """A server of its own, on a socket in a temporary folder; yields the URL of that folder's databases."""
    account = pwd.getpwnam(UNPRIVILEGED).pw_name if os.geteuid() == 0 else None
    folder = Path(tempfile.mkdtemp(prefix="headrace-pg-"))
    user: dict[str, Any] = {"user": account, "cwd": "/"}
    try:
        if account is not None:
            shutil.chown(folder, account)
        data = folder / "data"
        subprocess.run(
            [programs / "initdb", "--pgdata", data, "--username", "jobs", "--auth", "trust", "--no-sync"],
            check=True,
            stdout=subprocess.DEVNULL,
            **user,
        )
        settings = {"listen_addresses": "", "unix_socket_directories": str(folder), "fsync": "off"}
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, *(f"--{name}={value}" for name, value in settings.items())],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            **user,
        )
        try:
            waiting = [programs / "pg_isready", "--host", folder, "--timeout", "1"]
            while subprocess.run(waiting, stdout=subprocess.DEVNULL, check=False).returncode != 0:
                assert server.poll() is None, "PostgreSQL has ended"
            yield f"postgresql://jobs@/{{}}?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)  # do not wait for clients to leave
            server.wait(30)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def postgresql() -> Iterator[str]:
    """The URL of a running server, with {} for the database."""
    programs = postgresql_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    try:
        pwd.getpwnam(UNPRIVILEGED)
    except KeyError:
        if os.geteuid() == 0:
            pytest.skip(f"PostgreSQL does not run as root, and there is no user {UNPRIVILEGED!r}")
    with running_postgresql(programs) as url:
        yield url


@pytest.fixture
def new_database(postgresql: str) -> Callable[[], str]:
    """Makes an empty database and returns its URL."""

    def make() -> str:
        import psycopg

        name = f"jobs_{uuid.uuid4().hex}"
        with psycopg.connect(postgresql.format("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name} STRATEGY file_copy")
        return postgresql.format(name)

    return make


@pytest.fixture
def sqlite_config(tmp_path: Path) -> MakeConfig:
    """`sqlite_config(**fields)`: always the same store."""
    return lambda **fields: JobsConfig(jobs_dir=tmp_path / "jobs", **fields)


@pytest.fixture
def postgresql_config(new_database: Callable[[], str]) -> MakeConfig:
    """`postgresql_config(**fields)`: always the same store."""
    url = new_database()
    return lambda **fields: JobsConfig(jobs_url=url, **fields)


@pytest.fixture(params=["sqlite", "postgresql"])
def config_of(request: pytest.FixtureRequest) -> MakeConfig:
    """A configuration of an empty store of either kind."""
    return request.getfixturevalue(f"{request.param}_config")


@pytest.fixture
def short_policies(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a test ask for less time than callers may: it has none to wait."""
    monkeypatch.setattr(types, "SHORTEST_EXECUTION", 1)
    monkeypatch.setattr(types, "SHORTEST_TTL", 1)
