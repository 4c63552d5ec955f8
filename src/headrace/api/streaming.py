"""Answers that are sent piece by piece, and end when their reader goes away."""

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


class BodyStream(Response):
    """Sends each JSON text of `bodies` in a frame, then `end`. Subclasses say what these are.

    An exception out of `bodies` becomes a last text, that of the error envelope. However the sending ends, also when
    the caller goes away, `bodies` is closed and `source`, which feeds it, is left at once.
    """

    end: bytes

    def __init__(self, bodies: AsyncGenerator[bytes, None], source: AbstractAsyncContextManager[object]) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._bodies = bodies
        self._source = source

    def frame(self, body: bytes) -> bytes:
        """What is sent of one JSON text."""
        raise NotImplementedError

    async def frames(self) -> AsyncGenerator[bytes, None]:
        """What would be sent, for a reader in this process. It gets an exception out of `bodies` as it is."""
        async with self._source, aclosing(self._bodies) as bodies:
            async for body in bodies:
                yield self.frame(body)
            yield self.end

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
                await send({"type": "http.response.body", "body": self.frame(body), "more_body": True})
        await send({"type": "http.response.body", "body": self.end, "more_body": False})

    async def _next(self, bodies: AsyncGenerator[bytes, None]) -> bytes | None:
        """The next text, that of the error that ended `bodies`, or None."""
        try:
            return await anext(bodies, None)
        except Exception as error:
            if not isinstance(error, HeadraceError):
                logger.exception("stream failed")
            return msgspec.json.encode(envelope(error))
