"""The error tree of `core/errors.py` in OpenAI's envelope."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from fastapi import Response

from headrace.core.errors import (
    BadRequest,
    CallerError,
    HeadraceError,
    NotFound,
    NotPermitted,
    Overloaded,
    Unavailable,
)

_SHOWN_VALUE = 100
_SHOWN_FAILURES = 10
_PATH = re.compile(r"(?<![\w/.])/(?:[\w.@+-]+/)+[\w.@+-]+")
_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


class Unauthenticated(CallerError):
    """No API key, or a wrong one."""

    status = 401


class MalformedBody(CallerError):
    """The body is not what the route's schema says: not JSON, a field missing, a value of the wrong type."""


_TYPES: dict[type[HeadraceError], str] = {
    BadRequest: "BadRequestError",
    Unauthenticated: "AuthenticationError",
    NotPermitted: "PermissionDeniedError",
    NotFound: "NotFoundError",
    CallerError: "BadRequestError",
    Overloaded: "Service Unavailable",
    Unavailable: "ServiceUnavailableError",
    HeadraceError: "InternalServerError",
}


def envelope(error: Exception) -> dict[str, Any]:
    """`{"error": {"message", "type", "param", "code"}}`. An exception that is not ours shows nothing of itself."""
    if not isinstance(error, HeadraceError):
        return _envelope("Internal server error.", "InternalServerError", None, 500)
    if isinstance(error, MalformedBody):
        return _envelope(error.message, "Bad Request", error.parameter, error.status)
    kind = next(_TYPES[base] for base in type(error).__mro__ if base in _TYPES)
    if isinstance(error, CallerError):
        return _envelope(error.message + _where(error), kind, error.parameter, error.status)
    return _envelope(public_message(error), kind, None, error.status)


def error_response(error: Exception) -> Response:
    body = envelope(error)
    return Response(msgspec.json.encode(body), body["error"]["code"], media_type="application/json")


def malformed(failures: Sequence[Mapping[str, Any]]) -> MalformedBody:
    """The error for a list of pydantic's `errors()`, one line for each of the first ten."""
    count = len(failures)
    lines = [f"{count} validation error{'' if count == 1 else 's'}:"]
    lines += [f"  {_location(failure)}: {failure['msg']} (type={failure['type']})" for failure in failures]
    return MalformedBody("\n".join(lines[: _SHOWN_FAILURES + 1]), parameter=_location(failures[0]))


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


def public_message(error: HeadraceError) -> str:
    """The message without paths and addresses of this machine."""
    return _ADDRESS.sub("", _PATH.sub("<path>", error.message))
