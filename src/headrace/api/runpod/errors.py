"""The error tree of `core/errors.py` as the job API shows it: `{"error": "<one sentence>"}`, and never a `status` key.

A client that does not look at the HTTP status takes a `status` in the body for that of its job.
"""

from __future__ import annotations

import msgspec
from fastapi import Response
from starlette.exceptions import HTTPException

from headrace.api.errors import envelope
from headrace.core.errors import CallerError, Overloaded, Unavailable
from headrace.jobs import QueueFull, StoreUnavailable

RETRY_SECONDS = 5
"""When to try again, where the error does not say."""


class RateLimited(Overloaded):
    """More requests than the operator allows; the job queue itself may have room."""

    status = 429

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


def job_error_response(error: Exception) -> Response:
    """An exception that is not ours shows nothing of itself."""
    status, message, headers = _parts(error)
    return Response(msgspec.json.encode({"error": message}), status, headers, media_type="application/json")


def _parts(error: Exception) -> tuple[int, str, dict[str, str]]:
    """Status, sentence, headers."""
    if isinstance(error, HTTPException):
        return error.status_code, f"{error.detail}.", dict(error.headers or {})
    if isinstance(error, CallerError):
        return error.status, error.message, {}
    body = envelope(error)["error"]
    headers = {"Retry-After": str(_retry_after(error))} if isinstance(error, Unavailable) else {}
    return body["code"], body["message"], headers


def _retry_after(error: Unavailable) -> int:
    return error.retry_after if isinstance(error, QueueFull | RateLimited | StoreUnavailable) else RETRY_SECONDS
