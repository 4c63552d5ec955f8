"""What can go wrong, as the caller of a client sees it.

ClientError
├── TransportError            no whole answer arrived; the server may have acted on the request
│   ├── ConnectFailed         the request never reached a server
│   └── TimedOut              the server was silent for too long
├── ProtocolError             an answer that is not what the protocol says, or a stream that ends too early
├── JobFailed                 a job that was streamed ended without being complete
└── StatusError               the server refused, or failed; its own words are in the message
    ├── BadRequestError       4xx  a value makes no sense
    │   ├── ConflictError     409  an idempotency key was used before, for something else
    │   └── NotFoundError     404  no such model, job or route
    ├── AuthenticationError   401  no API key, or a wrong one
    ├── PermissionDeniedError 403  a feature that is switched off, or not for this key
    ├── RateLimitError        429  too many requests, or a full queue
    └── ServerError           5xx  the server's fault
"""

from __future__ import annotations

from typing import Any


class ClientError(Exception):
    """Root of every error that a client raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class TransportError(ClientError):
    """The connection broke before the whole answer was here. Nobody knows whether the server acted on the request."""


class ConnectFailed(TransportError):
    """No connection could be made, so that no server has seen the request."""


class TimedOut(TransportError):
    """The server was silent for longer than the time-out allows."""


class ProtocolError(ClientError):
    """An answer that cannot be understood: a body that is not what the route promises, a stream that ends too early."""


class JobFailed(ClientError):
    """A job that was streamed ended as `status`: FAILED, CANCELLED or TIMED_OUT."""

    def __init__(self, message: str, *, job_id: str, status: str) -> None:
        super().__init__(message)
        self.job_id = job_id
        self.status = status


class StatusError(ClientError):
    """The server answered with an error.

    `status` is that of HTTP. `type` and `param` are what the error object says of itself, None where it does not.
    `body`: the whole answer, a JSON value or, where it is none, text cut short.
    `request_id` names the request in the server's log. `retry_after`: seconds, where the server said when to come back.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None = None,
        param: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
        body: Any = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.type = type
        self.param = param
        self.request_id = request_id
        self.retry_after = retry_after
        self.body = body


class BadRequestError(StatusError):
    """A value that makes no sense, a body that is too large, or whatever else the caller can mend."""


class ConflictError(BadRequestError):
    """The idempotency key was used before, with another body."""


class NotFoundError(BadRequestError):
    """No such model, job or route."""


class AuthenticationError(StatusError):
    """The API key is missing or wrong."""


class PermissionDeniedError(StatusError):
    """The feature is switched off, or not for this key."""


class RateLimitError(StatusError):
    """More requests than the server allows, or its queue is full."""


class ServerError(StatusError):
    """The server failed, or is not ready."""


_BY_STATUS: dict[int, type[StatusError]] = {
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: ConflictError,
    429: RateLimitError,
}


def error_class(status: int) -> type[StatusError]:
    """The class for an HTTP status. What is neither 4xx nor 5xx (a redirect) is a plain `StatusError`."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if status >= 500:
        return ServerError
    return BadRequestError if status >= 400 else StatusError
