"""Durable jobs: a job that was accepted is on stable storage, survives any crash, and ends exactly once.

service = await JobService.start(config.jobs, endpoints=("default",), render_webhook=...)
service.open(execute)
job = await service.queue.submit(Scope("default"), Submission(input={...}))
job = await service.queue.wait(Scope("default"), job.id, timeout=90)
"""

from headrace.jobs.errors import (
    IdempotencyConflict,
    JobNotFound,
    QueueFull,
    QueueStopping,
    StoreInUse,
    StoreUnavailable,
    StoreUnusable,
    WrongState,
)
from headrace.jobs.queue import JobQueue
from headrace.jobs.service import JobService
from headrace.jobs.types import (
    Emit,
    Execute,
    Job,
    JobCounts,
    JobPolicy,
    JobStatus,
    RenderWebhook,
    Scope,
    StreamPage,
    Submission,
)

__all__ = [
    "Emit",
    "Execute",
    "IdempotencyConflict",
    "Job",
    "JobCounts",
    "JobNotFound",
    "JobPolicy",
    "JobQueue",
    "JobService",
    "JobStatus",
    "QueueFull",
    "QueueStopping",
    "RenderWebhook",
    "Scope",
    "StoreInUse",
    "StoreUnavailable",
    "StoreUnusable",
    "StreamPage",
    "Submission",
    "WrongState",
]
