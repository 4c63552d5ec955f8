"""Requests that are being answered, by the ids their callers know, so that they can be aborted by id."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from headrace.api.merge import MergedStreams


class LiveRequests:
    """Only its `tracked` blocks change it. Several requests may share an id."""

    def __init__(self) -> None:
        self._running: dict[str, list[MergedStreams]] = {}

    @asynccontextmanager
    async def tracked(self, ids: Sequence[str], streams: MergedStreams) -> AsyncIterator[None]:
        """`streams`, entered, is known by each of `ids` until the block is left."""
        for request_id in ids:
            self._running.setdefault(request_id, []).append(streams)
        try:
            async with streams:
                yield
        finally:
            for request_id in ids:
                self._running[request_id].remove(streams)
                if not self._running[request_id]:
                    del self._running[request_id]

    def abort(self, request_id: str) -> None:
        """End every request of that id. Their answers end with the reason "abort"; an unknown id is none of them."""
        for streams in self._running.get(request_id, ()):
            streams.abort()
