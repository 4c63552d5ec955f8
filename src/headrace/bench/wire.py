"""Requests over HTTP/1.1, with as little work on the client's side as there can be.

The load generator often shares the processors with the server it measures. So while a load runs, the pieces of an
answer are only noted with the time they came; what they say is read when it is over (`samples.py`).
"""

from __future__ import annotations

import asyncio
import ssl
import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import httptools
import httpx

from headrace.client import ConnectFailed, ProtocolError, TransportError
from headrace.client.call import Request
from headrace.client.settings import Settings

clock: Callable[[], float] = time.perf_counter
"""Seconds. Every time in a recording is read from it."""

_CONNECT_SECONDS = 10.0
_PORTS = {"http": 80, "https": 443}


@dataclass(slots=True)
class Recording:
    """An answer as it came: `times[i]` is when `pieces[i]` of its body was here, `sent` when the request went out."""

    sent: float
    times: array[float] = field(default_factory=lambda: array("d"))
    pieces: list[bytes] = field(default_factory=list)
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    ended: float = 0.0

    @property
    def body(self) -> bytes:
        return b"".join(self.pieces)


class Server:
    """Where requests go, and what they carry beside their body."""

    def __init__(self, settings: Settings) -> None:
        url = httpx.URL(settings.base_url)
        self.host = url.host
        self.port = url.port or _PORTS[url.scheme]
        self.tls = ssl.create_default_context() if url.scheme == "https" else None
        self._path = url.raw_path.decode().rstrip("/")
        headers = {
            "Host": url.netloc.decode(),
            "Content-Type": "application/json",
            "Connection": "keep-alive",
            **settings.http_headers(),
        }
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def bytes_of(self, request: Request) -> bytes:
        """The request as it goes over the wire."""
        body = request.body or b""
        head = f"{request.method} {self._path}{request.path} HTTP/1.1\r\n{self._headers}Content-Length: {len(body)}"
        return f"{head}\r\n\r\n".encode() + body


class Connections:
    """Connections to one server, kept open and used again. For one event loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._idle: list[_Connection] = []

    async def post(self, request: bytes) -> Recording:
        """Send `request` and record the whole answer, whatever its status.

        A request that finds its connection closed by the server, as servers do with idle ones, is sent again on
        another. Raises `ConnectFailed`, `TransportError` and `ProtocolError`. Cancelling it closes the connection.
        """
        recording = Recording(clock())
        while (connection := self._take_idle()) is not None:
            try:
                return await self._exchange(connection, request, recording)
            except _Unanswered:
                continue
        return await self._exchange(await self._connect(), request, recording)

    def close(self) -> None:
        for connection in self._idle:
            connection.close()
        self._idle.clear()

    async def _exchange(self, connection: _Connection, request: bytes, recording: Recording) -> Recording:
        try:
            await connection.exchange(request, recording)
        except BaseException:
            connection.close()
            raise
        if connection.reusable:
            self._idle.append(connection)
        else:
            connection.close()
        return recording

    def _take_idle(self) -> _Connection | None:
        """The one used last: it is the least likely to have been closed."""
        while self._idle:
            connection = self._idle.pop()
            if connection.reusable:
                return connection
        return None

    async def _connect(self) -> _Connection:
        server = self._server
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                _, connection = await loop.create_connection(_Connection, server.host, server.port, ssl=server.tls)
        except TimeoutError:
            raise ConnectFailed(f"No connection could be made within {_CONNECT_SECONDS:g} s.") from None
        except OSError as error:  # of TLS, too
            raise ConnectFailed(f"No connection could be made: {error}.") from error
        return connection


class _Unanswered(TransportError):
    """The connection was closed before the first byte of an answer."""


class _Connection(asyncio.Protocol):
    """One request at a time. The methods with `on_` are called by the parser.

    `_done` is pending while an answer is waited for. `_framed`: the answer says itself where it ends.
    """

    def __init__(self) -> None:
        self.reusable = False
        self._parser = httptools.HttpResponseParser(self)
        self._now = 0.0
        self._answered = False
        self._framed = False
        self._recording = Recording(0.0)
        self._done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._done.set_result(None)

    async def exchange(self, request: bytes, recording: Recording) -> None:
        self._recording = recording
        self._answered = self.reusable = self._framed = False
        self._done = asyncio.get_running_loop().create_future()
        if self._transport.is_closing():
            raise _Unanswered("The server closed the connection.")
        self._transport.write(request)
        await self._done

    def close(self) -> None:
        self.reusable = False
        self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by name

    def data_received(self, data: bytes) -> None:
        self._now = clock()
        if self._done.done():  # nobody has asked: a farewell before an idle connection is closed
            self.close()
            return
        self._answered = True
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            self._fail(ProtocolError(f"The answer is no HTTP/1.1: {error}."))
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.reusable = False
        if self._done.done():
            return
        if not self._answered:
            self._fail(_Unanswered("The server closed the connection without an answer."))
        elif exc is None and self._recording.status and not self._framed:  # its end is the end of the connection
            self._recording.ended = clock()
            self._done.set_result(None)
        else:
            self._fail(TransportError(f"The connection broke: {exc or 'the server closed it'}."))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._recording.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        headers = self._recording.headers
        self._recording.status = self._parser.get_status_code()
        self._framed = "content-length" in headers or "chunked" in headers.get("transfer-encoding", "").lower()

    def on_body(self, body: bytes) -> None:
        recording = self._recording
        recording.times.append(self._now)
        recording.pieces.append(body)

    def on_message_complete(self) -> None:
        self._recording.ended = self._now
        self.reusable = self._parser.should_keep_alive() and not self._transport.is_closing()
        if not self._done.done():
            self._done.set_result(None)

    def _fail(self, error: Exception) -> None:
        if not self._done.done():
            self._done.set_exception(error)
