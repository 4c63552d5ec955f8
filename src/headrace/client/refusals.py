"""Errors that a server sends, in any of the shapes that servers of these families have."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

import msgspec

from headrace.client.errors import StatusError, error_class

_SHOWN = 500


def refusal_of_body(status: int, body: bytes, headers: Mapping[str, str]) -> StatusError:
    """The error for a response. A body that is no JSON is shown as it is, cut short."""
    try:
        said = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        said = body[:_SHOWN].decode(errors="replace").strip()
    return _refusal(status, said, headers.get("x-request-id"), _retry_after(headers.get("retry-after")))


def refusal_in_stream(said: Any, request_id: str | None) -> StatusError | None:
    """The error that a decoded event of a stream stands for, if it is one."""
    if not isinstance(said, dict) or not said.get("error"):
        return None
    error = said["error"]
    code = error.get("code") if isinstance(error, dict) else None
    status = code if type(code) is int and 400 <= code <= 599 else 500
    return _refusal(status, said, request_id, None)


def _refusal(status: int, said: Any, request_id: str | None, retry_after: float | None) -> StatusError:
    error = said.get("error", said) if isinstance(said, dict) else said
    kind = param = None
    if isinstance(error, dict):
        kind, param = _text(error.get("type")), _text(error.get("param"))
        message = error.get("message") or error.get("detail")
    else:
        message = error
    return error_class(status)(
        _text(message) or _phrase(status),
        status=status,
        type=kind,
        param=param,
        request_id=request_id,
        retry_after=retry_after,
        body=said,
    )


def _text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


def _phrase(status: int) -> str:
    try:
        return f"The server answered {status} {HTTPStatus(status).phrase}."
    except ValueError:
        return f"The server answered {status}."


def _retry_after(text: str | None) -> float | None:
    """Seconds, from a number of them or from a date."""
    if text is None:
        return None
    if text.strip().isdecimal():
        return float(text)
    try:
        then = parsedate_to_datetime(text)
    except ValueError:
        return None
    if then.tzinfo is None:
        then = then.replace(tzinfo=UTC)
    return max(0.0, (then - datetime.now(UTC)).total_seconds())
