"""One streamed completion over HTTP/1.1, with as little work on the client's side as there can be.

The load generator shares the processors with the server it measures. So while a load runs, bytes are only noted with
the time they came; what they say is read when it is over.
"""

from __future__ import annotations

import asyncio
import json
import time
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import accumulate
from typing import Any
from urllib.parse import urlsplit


class BadAnswer(Exception):
    """The server answered something else than the completion that was asked for."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One completion: monotonic seconds at which it was sent and at which each chunk with a choice came."""

    sent: float
    arrivals: list[float]
    prompt_tokens: int
    output_tokens: int


@dataclass(frozen=True, slots=True)
class Recording:
    """The bytes of one answer, as they came: `pieces` are (monotonic seconds, bytes)."""

    sent: float
    pieces: list[tuple[float, bytes]]


class _Recorder(asyncio.Protocol):
    def __init__(self, request: bytes) -> None:
        self.pieces: list[tuple[float, bytes]] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._request = request

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        self.pieces.append((time.monotonic(), data))

    def connection_lost(self, exc: Exception | None) -> None:
        if exc is None:
            self.ended.set_result(None)
        else:
            self.ended.set_exception(exc)


def request_bytes(url: str, path: str, body: dict[str, Any]) -> bytes:
    """A POST of `body`; the server is asked to close the connection after its answer, which is how that ends."""
    data = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {urlsplit(url).netloc}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(data)}\r\nConnection: close\r\n\r\n"
    )
    return head.encode() + data


async def record(url: str, request: bytes) -> Recording:
    """Send `request` on a connection of its own and wait for the end of the answer."""
    address = urlsplit(url)
    sent = time.monotonic()
    loop = asyncio.get_running_loop()
    _, recorder = await loop.create_connection(lambda: _Recorder(request), address.hostname, address.port)
    await recorder.ended
    return Recording(sent, recorder.pieces)


def read(recording: Recording) -> Sample:
    """What a recording says. Raises `BadAnswer` if that is no completed stream with usage."""
    arrivals = []
    usage = None
    for seconds, event in _events(recording):
        if event == b"[DONE]":
            break
        chunk = json.loads(event)
        if "error" in chunk:
            raise BadAnswer(f"error in the stream: {chunk['error']}")
        if chunk.get("choices"):
            arrivals.append(seconds)
        if chunk.get("usage"):
            usage = chunk["usage"]
    if usage is None or not arrivals:
        raise BadAnswer("the stream ended without usage or without a token")
    return Sample(recording.sent, arrivals, usage["prompt_tokens"], usage["completion_tokens"])


def _events(recording: Recording) -> Iterator[tuple[float, bytes]]:
    """The `data:` of each server-sent event, and when its last byte came."""
    wire = b"".join(data for _, data in recording.pieces)
    ends = list(accumulate(len(data) for _, data in recording.pieces))
    head, separator, _ = wire.partition(b"\r\n\r\n")
    if not separator:
        raise BadAnswer(f"no HTTP answer: {wire[:200]!r}")
    start = len(head) + len(separator)
    if head.split(b" ", 2)[1] != b"200":
        raise BadAnswer(f"{head.splitlines()[0].decode()}: {wire[start:].decode(errors='replace')}")
    chunked = b"transfer-encoding: chunked" in head.lower()
    pending = b""
    for end, data in _chunks(wire, start) if chunked else [(len(wire), wire[start:])]:
        *complete, pending = (pending + data).replace(b"\r\n", b"\n").split(b"\n\n")
        for event in complete:
            if event.startswith(b"data: "):
                yield recording.pieces[bisect_left(ends, end)][0], event[6:]


def _chunks(wire: bytes, start: int) -> Iterator[tuple[int, bytes]]:
    """The chunks of a chunked body: where each ends in `wire`, and its bytes."""
    while start < len(wire):
        line_end = wire.index(b"\r\n", start)
        size = int(wire[start:line_end].partition(b";")[0], 16)
        if size == 0:
            return
        end = line_end + 2 + size
        yield end, wire[line_end + 2 : end]
        start = end + 2
    raise BadAnswer("the stream broke off")
