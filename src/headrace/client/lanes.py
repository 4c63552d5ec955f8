"""Connections for many requests at a time.

httpcore's pool looks through all its connections, for each idle one again, whenever a request begins or ends: with a
hundred of them that takes longer than the request. A pool of one connection has nothing to look through.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from urllib.request import getproxies

import httpx


class Lanes(httpx.AsyncBaseTransport):
    """A transport over as many others as there are requests at a time; each carries one, and is then used again."""

    def __init__(self, make_lane: Callable[[], httpx.AsyncBaseTransport]) -> None:
        self._make_lane = make_lane
        self._lanes: list[httpx.AsyncBaseTransport] = []
        self._free: list[httpx.AsyncBaseTransport] = []

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        lane = self._take()
        try:
            response = await lane.handle_async_request(request)
        except BaseException:
            self._free.append(lane)
            raise
        assert isinstance(response.stream, httpx.AsyncByteStream)
        stream = _Body(response.stream, lambda: self._free.append(lane))
        return httpx.Response(
            response.status_code, headers=response.headers, stream=stream, extensions=response.extensions
        )

    async def aclose(self) -> None:
        for lane in self._lanes:
            await lane.aclose()

    def _take(self) -> httpx.AsyncBaseTransport:
        """The one that was used last, as its connection is the least likely to have been closed since."""
        if self._free:
            return self._free.pop()
        lane = self._make_lane()
        self._lanes.append(lane)
        return lane


class _Body(httpx.AsyncByteStream):
    """The body of a response; when it is closed, the lane is free."""

    def __init__(self, stream: httpx.AsyncByteStream, release: Callable[[], None]) -> None:
        self._stream = stream
        self._release = release
        self._closed = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self._stream.__aiter__()

    async def aclose(self) -> None:
        if self._closed:
            return
        self._closed = True
        try:
            await self._stream.aclose()
        finally:
            self._release()


def over_tcp() -> Lanes | None:
    """For a client that is given no transport. None where a proxy stands in between: httpx knows how to find it."""
    if getproxies():
        return None
    tls = httpx.create_ssl_context()
    return Lanes(lambda: httpx.AsyncHTTPTransport(verify=tls))


def over_socket(path: str) -> Lanes:
    """To a server that listens on a Unix socket."""
    return Lanes(lambda: httpx.AsyncHTTPTransport(verify=False, uds=path))
