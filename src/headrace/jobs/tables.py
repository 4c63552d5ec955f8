"""The tables of the job store, the same in SQLite and PostgreSQL. Points in time are milliseconds."""

from __future__ import annotations

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Enum,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    select,
)

from headrace.jobs.types import JobStatus

SCHEMA_VERSION = 1

metadata = MetaData()

schema = Table("headrace_schema", metadata, Column("version", Integer, primary_key=True))

jobs = Table(
    "headrace_jobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("endpoint", Text, nullable=False),
    Column("owner", Text, nullable=False),
    Column("status", Enum(JobStatus, native_enum=False, length=16), nullable=False),
    # Who is next: microseconds of submission, unique in a server; later by half the ttl for a low-priority job.
    Column("turn", BigInteger, nullable=False),
    # When the sweeper must act: the end of its ttl for a live job, of its retention for one that has ended.
    Column("deadline", BigInteger, nullable=False),
    Column("execution_timeout", BigInteger, nullable=False),
    Column("ttl", BigInteger, nullable=False),
    Column("low_priority", Boolean, nullable=False),
    Column("retention", BigInteger, nullable=False),
    Column("submitted_at", BigInteger, nullable=False),
    Column("started_at", BigInteger),
    Column("finished_at", BigInteger),
    # Never goes back: with the status it is what a worker's compare-and-set compares.
    Column("attempt", Integer, nullable=False),
    Column("retries", Integer, nullable=False),
    Column("worker_id", Text),
    Column("error", Text),
    Column("webhook", Text),
    Column("chunk_count", Integer, nullable=False),
    Column("delivered", Integer, nullable=False),
    # A chunk may have reached a reader, though `delivered` does not say so yet.
    Column("offered", Boolean, nullable=False),
    Column("input_bytes", BigInteger, nullable=False),
    Column("idempotency_key", Text),
    Column("fingerprint", LargeBinary),
)

# The endpoint comes first although a state of all endpoints is asked for as well: an index that begins with the state
# lures SQLite into walking through every waiting job where a few ids are given.
Index("headrace_jobs_turn", jobs.c.endpoint, jobs.c.status, jobs.c.turn)
Index("headrace_jobs_deadline", jobs.c.deadline)
Index(
    "headrace_jobs_idempotency",
    jobs.c.endpoint,
    jobs.c.owner,
    jobs.c.idempotency_key,
    unique=True,
    sqlite_where=jobs.c.idempotency_key.is_not(None),
    postgresql_where=jobs.c.idempotency_key.is_not(None),
)

# Apart from the jobs, so that a change of state does not write an input of megabytes again.
inputs = Table(
    "headrace_job_inputs",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("body", LargeBinary, nullable=False),
)

chunks = Table(
    "headrace_job_chunks",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("place", Integer, primary_key=True, autoincrement=False),
    Column("body", LargeBinary, nullable=False),
)

# Webhook calls that are still to be made.
webhooks = Table(
    "headrace_job_webhooks",
    metadata,
    Column("job_id", String(64), primary_key=True),
    Column("due_at", BigInteger, nullable=False, index=True),
    Column("tries", Integer, nullable=False),
)

# Servers that run jobs. One whose lease has run out is gone, and so are the attempts it was making.
workers = Table(
    "headrace_job_workers",
    metadata,
    Column("id", Text, primary_key=True),
    Column("lease_until", BigInteger, nullable=False),
)

# One row an endpoint, kept in step with the jobs in every transaction: counting 100,000 rows for each submission and
# each health check would be too slow. The first three are of the moment, the others lifetime totals.
counters = Table(
    "headrace_job_counters",
    metadata,
    Column("endpoint", Text, primary_key=True),
    *(
        Column(name, BigInteger, nullable=False)
        for name in (
            "in_queue",
            "in_queue_bytes",
            "in_progress",
            "completed",
            "failed",
            "cancelled",
            "timed_out",
            "retried",
        )
    ),
)

ANY_ENDPOINT = jobs.c.endpoint.in_(select(counters.c.endpoint))
"""True for every job, and what lets a query for a state of all endpoints use the index on the turns."""
