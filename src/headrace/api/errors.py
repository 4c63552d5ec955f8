"""The error tree of `core/errors.py` in OpenAI's envelope, and the boundary behind which no exception leaks."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import Request, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.core.errors import (
    BadRequest,
    CallerError,
    HeadraceError,
    NotFound,
    NotPermitted,
    Overloaded,
    Unavailable,
)

logger = logging.getLogger(__name__)

_TYPES: dict[type[HeadraceError], str] = {
    BadRequest: "BadRequestError",
    NotPermitted: "PermissionDeniedError",
    NotFound: "NotFoundError",
    CallerError: "BadRequestError",
    Overloaded: "Service Unavailable",
    Unavailable: "ServiceUnavailableError",
    HeadraceError: "InternalServerError",
}
_SHOWN_VALUE = 100
_SHOWN_FAILURES = 10
_PATH = re.compile(r"(?<![\w/.])/(?:[\w.@+-]+/)+[\w.@+-]+")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class MalformedBody(CallerError):
    """The body is not what the route's schema says: not JSON, a field missing, a value of the wrong type."""


def envelope(error: Exception) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`. An exception that is not ours shows nothing of itself."""
    if not isinstance(error, HeadraceError):
        return _envelope("Internal server error.", "InternalServerError", None, 500)
    if isinstance(error, MalformedBody):
        return _envelope(error.message, "Bad Request", error.parameter, error.status)
    kind = next(_TYPES[base] for base in type(error).__mro__ if base in _TYPES)
    if isinstance(error, CallerError):
        return _envelope(error.message + _where(error), kind, error.parameter, error.status)
    return _envelope(_without_internals(error.message), kind, None, error.status)


def error_response(error: Exception) -> Response:
    body = envelope(error)
    return Response(msgspec.json.encode(body), body["error"]["code"], media_type="application/json")


def unauthorized() -> Response:
    body = _envelope("The API key is missing or wrong.", "AuthenticationError", None, 401)
    return Response(msgspec.json.encode(body), 401, media_type="application/json")


def malformed(failures: Sequence[Mapping[str, Any]]) -> MalformedBody:
    """The error for a list of pydantic's `errors()`, one line for each of the first ten."""
    count = len(failures)
    lines = [f"{count} validation error{'' if count == 1 else 's'}:"]
    lines += [f"  {_location(failure)}: {failure['msg']} (type={failure['type']})" for failure in failures]
    return MalformedBody("\n".join(lines[: _SHOWN_FAILURES + 1]), parameter=_location(failures[0]))


async def answer_error(_: Request, error: Exception) -> Response:
    """FastAPI's handler for the whole tree."""
    if isinstance(error, HeadraceError) and error.status == 500:
        logger.error("%s: %s", type(error).__name__, error.message)
    return error_response(error)


class ErrorBoundary:
    """Turns an exception that nobody expected into a logged 500, unless the response has already begun."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun:
                raise
            logger.exception("%s %s failed", scope["method"], scope["path"])
            await error_response(error)(scope, receive, send)


def _envelope(message: str, kind: str, parameter: str | None, status: int) -> dict[str, Any]:
    return {"error": {"message": message, "type": kind, "param": parameter, "code": status}}


def _where(error: CallerError) -> str:
    if error.parameter is None or error.value is None:
        return ""
    shown = str(error.value)
    if len(shown) > _SHOWN_VALUE:
        shown = shown[:_SHOWN_VALUE] + "…"
    return f" (parameter={error.parameter}, value={shown})"


def _location(failure: Mapping[str, Any]) -> str:
    return ".".join(["body", *(str(step) for step in failure["loc"])])


def _without_internals(message: str) -> str:
    return _ADDRESS.sub("", _PATH.sub("<path>", message))
