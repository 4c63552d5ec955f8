"""Requests that are being answered, by the ids their callers know, so that they can be aborted by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Protocol


class Abortable(Protocol):
    """What answers a request. Leaving its `async with` block ends it; so does `abort`, but the caller hears of that."""

    async def __aenter__(self) -> Any: ...

    async def __aexit__(self, *exc_info: object) -> None: ...

    def abort(self) -> None: ...


class LiveRequests:
    """Only its `tracked` blocks change it. Several requests may share an id."""

    def __init__(self) -> None:
        self._running: dict[str, list[Abortable]] = {}

    @asynccontextmanager
    async def tracked(self, ids: Sequence[str], request: Abortable) -> AsyncIterator[None]:
        """`request`, entered, is known by each of `ids` until the block is left."""
        for request_id in ids:
            self._running.setdefault(request_id, []).append(request)
        try:
            async with request:
                yield
        finally:
            for request_id in ids:
                self._running[request_id].remove(request)
                if not self._running[request_id]:
                    del self._running[request_id]

    def abort(self, request_id: str) -> None:
        """End every request of that id. Their answers end with the reason "abort"; an unknown id is none of them."""
        for request in self._running.get(request_id, ()):
            request.abort()
