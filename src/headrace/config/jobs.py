"""The knobs of the job queue: where it is kept, how much it holds, how long."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headrace.config.rules import Must, Size, above, at_least, between, check_fields
from headrace.core.errors import ConfigError

_WEEK = 7 * 24 * 60 * 60
_POSTGRESQL = Must(
    "a postgresql:// URL", lambda value: value.startswith(("postgresql://", "postgres://", "postgresql+psycopg://"))
)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobsConfig:
    """The job queue."""

    jobs_dir: Path | None = None
    """Folder of the job store, one SQLite file. Default: headrace/jobs in the user's state directory."""
    jobs_url: Annotated[str | None, _POSTGRESQL] = field(default=None, repr=False)
    """Keep jobs in PostgreSQL instead: postgresql://user:password@host/name. Several servers may share one queue."""
    max_running_jobs: Annotated[int, at_least(1)] = 64
    """Most jobs that this server runs at a time; the others wait in the queue."""
    max_queued_jobs: Annotated[int, Size(), at_least(1)] = 100_000
    """Jobs that may wait; 429 beyond."""
    max_queued_job_bytes: Annotated[int, Size(), at_least(1)] = 1 << 30
    """Bytes of input that waiting jobs may hold together; 429 beyond."""
    max_job_chunk_bytes: Annotated[int, Size(), at_least(1)] = 10_000_000
    """Most bytes of one chunk of a job's output, as JSON; the job fails beyond."""
    max_job_output_bytes: Annotated[int, Size(), at_least(1)] = 20_000_000
    """Most bytes of a job's whole output, as JSON; the job fails beyond."""
    job_execution_timeout: Annotated[float, between(5, _WEEK)] = 600.0
    """Seconds that a running job may take, unless its policy says otherwise."""
    job_ttl: Annotated[float, between(10, _WEEK)] = 24 * 60 * 60.0
    """Seconds from submission to the end, unless a job's policy says otherwise."""
    job_retention: Annotated[float, above(0)] = 30 * 60.0
    """Seconds that the result of /run is kept."""
    job_sync_retention: Annotated[float, above(0)] = 60.0
    """Seconds that the result of /runsync is kept."""
    job_lease: Annotated[float, at_least(1)] = 30.0
    """Seconds after which the jobs of a silent server are given to another (PostgreSQL only)."""
    job_webhook_private: bool = False
    """Also call webhooks at private, loopback and link-local addresses."""
    job_webhook_retry_delay: Annotated[float, at_least(0)] = 10.0
    """Seconds between the three tries to call a webhook."""

    def __post_init__(self) -> None:
        check_fields(self)
        if self.jobs_dir is not None and self.jobs_url is not None:
            raise ConfigError("--jobs-dir and --jobs-url exclude each other: jobs are kept in one place.")
