"""Server-sent events: `data: …` and a blank line, `[DONE]` at the end whatever happens."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager, aclosing

import msgspec
from fastapi import Response
from starlette.types import Receive, Scope, Send

from headrace.api.disconnect import CallerGone, while_connected
from headrace.api.errors import envelope
from headrace.core.errors import HeadraceError

logger = logging.getLogger(__name__)

DONE = b"data: [DONE]\n\n"


def event(body: bytes) -> bytes:
    """One event holding the JSON text `body`."""
    return b"data: " + body + b"\n\n"


class EventStream(Response):
    """Sends each JSON text of `bodies` as an event, then `[DONE]`.

    An exception out of `bodies` becomes an event of the error envelope before `[DONE]`. However the sending ends, also
    when the caller goes away, `bodies` is closed and `source`, which feeds it, is left at once.
    """

    media_type = "text/event-stream"

    def __init__(self, bodies: AsyncGenerator[bytes, None], source: AbstractAsyncContextManager[object]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._bodies = bodies
        self._source = source

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async with self._source:
            try:
                await while_connected(receive, self._send(send))
            except CallerGone:
                logger.debug("caller of %s left the stream", scope["path"])

    async def _send(self, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        async with aclosing(self._bodies) as bodies:
            while (body := await self._next(bodies)) is not None:
                await send({"type": "http.response.body", "body": event(body), "more_body": True})
        await send({"type": "http.response.body", "body": DONE, "more_body": False})

    async def _next(self, bodies: AsyncGenerator[bytes, None]) -> bytes | None:
        """The next text, that of the error that ended `bodies`, or None."""
        try:
            return await anext(bodies, None)
        except Exception as error:
            if not isinstance(error, HeadraceError):
                logger.exception("stream failed")
            return msgspec.json.encode(envelope(error))
