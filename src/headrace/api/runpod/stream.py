"""The two replies of /stream: one JSON document, or a line a chunk until the job ends.

What a reply takes from the job counts as read only once it was written to a connection that is still open.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable

from fastapi import Request, Response
from starlette.types import Receive, Scope, Send

from headrace.api.disconnect import CallerGone, while_connected
from headrace.api.runpod.wire import StreamReply, encode, stream_reply
from headrace.core.errors import HeadraceError
from headrace.jobs import JobQueue, StreamPage
from headrace.jobs import Scope as JobScope

logger = logging.getLogger(__name__)

HOLD_SECONDS = 5.0
"""How long a poll waits for something to show, unless it says; also the longest silence of any reply.

Clients give up after 10 seconds without a byte, and some ask again at once where the answer is empty."""

_LINE_TYPES = ("application/x-ndjson", "application/jsonl")


def wants_lines(http: Request, mode: str | None, *, by_default: bool) -> bool:
    """Clients that read one document say so in one way or another; what says nothing is taken for a reader of lines,
    if the server is told to. `mode` is the query's, "lines" or "poll".
    """
    accept = http.headers.get("accept", "").lower()
    if mode == "lines" or any(kind in accept for kind in _LINE_TYPES):
        return True
    json_named = "application/json" in accept or "application/json" in http.headers.get("content-type", "").lower()
    own_client = http.headers.get("user-agent", "").startswith("RunPod-")
    if mode == "poll" or http.method == "POST" or json_named or own_client:
        return False
    return by_default


class ChunkReader:
    """The chunks of one job for one reply: from the common cursor on, or from chunk `offset` on without moving it."""

    def __init__(self, queue: JobQueue, scope: JobScope, job_id: str, offset: int | None) -> None:
        self._queue = queue
        self._scope = scope
        self._job_id = job_id
        self._offset = offset

    @property
    def stopping(self) -> bool:
        """Whether the server is going down, so that nothing more will come."""
        return self._queue.stopping

    @contextlib.asynccontextmanager
    async def page(self, hold: float) -> AsyncIterator[StreamPage]:
        """The next chunks, waited for up to `hold` seconds. They are taken when the block is left without exception."""
        async with self._queue.stream(self._scope, self._job_id, hold=hold, offset=self._offset) as page:
            yield page
        if self._offset is not None:
            self._offset = page.first + len(page.chunks)


class _Reply(Response):
    """Begins with its first bytes, so that an error before them is an ordinary error response.

    An error after them ends it: without a terminal status the reader comes back, and is then told.
    """

    def __init__(self, reader: ChunkReader) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self._reader = reader
        self._begun = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.suppress(CallerGone):
            await while_connected(receive, self._run(send))

    async def _run(self, send: Send) -> None:
        try:
            await self._write_all(send)
        except HeadraceError as error:
            if not self._begun:
                raise
            logger.warning("A reply of /stream ends early: %s", error.message)
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _write_all(self, send: Send) -> None:
        raise NotImplementedError

    async def _write(self, send: Send, body: bytes) -> None:
        if not self._begun:
            self._begun = True
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        await send({"type": "http.response.body", "body": body, "more_body": True})
        await asyncio.sleep(0)  # a caller who has gone is noticed here, before the bytes count as read


class PollReply(_Reply):
    """Everything there is, as soon as there is something or `wait` seconds are over; `reply` puts it into words."""

    media_type = "application/json"

    def __init__(self, reader: ChunkReader, wait: float, reply: Callable[[StreamPage], StreamReply]) -> None:
        super().__init__(reader)
        self._wait = wait
        self._reply = reply

    async def _write_all(self, send: Send) -> None:
        deadline = time.monotonic() + self._wait
        while True:
            left = deadline - time.monotonic()
            async with self._reader.page(min(left, HOLD_SECONDS)) as page:
                if page.chunks or page.last or left <= HOLD_SECONDS or self._reader.stopping:
                    await self._write(send, encode(self._reply(page)))
                    return
            await self._write(send, b" ")  # JSON may begin with blanks


class LinesReply(_Reply):
    """A line as chunks come, an empty one where none come for long; the last one carries the terminal status.

    Without it the server went down, and the rest can be had from it later.
    """

    media_type = "application/x-ndjson"

    async def _write_all(self, send: Send) -> None:
        hold = 0.0
        while True:
            async with self._reader.page(hold) as page:
                something = page.chunks or page.last
                await self._write(send, encode(stream_reply(page)) if something else b"\n")
                if page.last or self._reader.stopping:
                    return
            hold = HOLD_SECONDS
