"""What can go wrong between a caller and the queue. Each is a branch of `core/errors.py`."""

from __future__ import annotations

from headrace.core.errors import CallerError, NotFound, Overloaded, StartupError, Unavailable


class JobNotFound(NotFound):
    """No such job, no longer, or not one that this caller may see."""

    def __init__(self, job_id: str) -> None:
        super().__init__("No such job, or its result has expired.", parameter="id", value=job_id)

    def __reduce__(self) -> tuple:
        return JobNotFound, (str(self.value),)


class WrongState(CallerError):
    """The job's state does not allow what was asked for."""


class IdempotencyConflict(CallerError):
    """The idempotency key was used before, with another body."""

    status = 409


class QueueFull(Overloaded):
    """The queue holds as many jobs, or bytes of input, as it may; nothing was stored."""

    status = 429
    retry_after = 5
    """Seconds after which trying again makes sense."""


class StoreUnavailable(Unavailable):
    """The job store cannot be written or read now (disk full, file read-only, database away); nothing was stored."""

    retry_after = 5
    """Seconds after which trying again makes sense."""


class QueueStopping(StoreUnavailable):
    """The server is being stopped and takes no more jobs."""


class StoreInUse(StartupError):
    """Another server uses the same jobs directory."""


class StoreUnusable(StartupError):
    """The job store cannot be opened: no permission, no such database, or one of another version."""
