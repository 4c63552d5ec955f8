"""One identifier for a request: in its X-Request-Id header, in the body of the answer, in the log."""

from __future__ import annotations

import re
import secrets
import uuid

from fastapi import Request
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headrace.core.errors import BadRequest

HEADER = "X-Request-Id"
_PRINTABLE = re.compile(r"[\x20-\x7e]{1,256}")


class RequestIds:
    """Puts the X-Request-Id header on every response: the one the caller sent, else the one the body shows."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        state = scope.setdefault("state", {})
        state["request_id"] = Headers(scope=scope).get(HEADER) or uuid.uuid4().hex

        async def named(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)[HEADER] = state["request_id"]
            await send(message)

        await self._app(scope, receive, named)


def request_id(http: Request, asked: str | None) -> str:
    """The base of the answer's id: the header, else the body's `request_id` (`asked`), else the middleware's, else new.

    Raises `BadRequest` if `asked` could not stand in a header.
    """
    if asked and not _PRINTABLE.fullmatch(asked):
        raise BadRequest("request_id must be 1 to 256 printable ASCII characters.", parameter="request_id")
    state = http.scope.setdefault("state", {})
    state["request_id"] = http.headers.get(HEADER) or asked or state.get("request_id") or secrets.token_hex(8)
    return state["request_id"]
