"""The chunks of one attempt on their way into the store: as many in one write as have come while the last one ran."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from headrace.config.jobs import JobsConfig
from headrace.core.errors import HeadraceError

Append = Callable[[int, Sequence[bytes]], Awaitable[bool]]
"""Stores chunks from a number on, trying until it can; false if the attempt is no longer the one that runs."""

_MOST_WAITING = 1 << 20
"""Bytes that may wait to be stored before `emit` waits as well."""


class OutputTooLarge(HeadraceError):
    """The job has produced more than the server keeps."""


class Output:
    """Takes chunks from the executor; nobody has to wait for a reader, and hardly ever for the disk.

    `revoked` is called when the store says that the attempt is over.
    """

    def __init__(self, append: Append, config: JobsConfig, revoked: Callable[[], None]) -> None:
        self._append = append
        self._config = config
        self._revoked = revoked
        self._stored = 0
        self._bytes = 0
        self._waiting: list[bytes] = []
        self._waiting_bytes = 0
        self._closed = False
        self._storing: asyncio.Task[None] | None = None

    async def emit(self, chunk: Any) -> None:
        """Raises `OutputTooLarge`, and `TypeError` for what JSON cannot express."""
        body = msgspec.json.encode(chunk)
        self._bytes += len(body)
        for name, size, limit in (
            ("chunk", len(body), self._config.max_job_chunk_bytes),
            ("output", self._bytes, self._config.max_job_output_bytes),
        ):
            if size > limit:
                raise OutputTooLarge(f"The job's {name} has more than {limit} bytes (--max-job-{name}-bytes).")
        self._waiting.append(body)
        self._waiting_bytes += len(body)
        if self._storing is None or self._storing.done():
            self._storing = asyncio.create_task(self._store(), name="job-output")
        if self._waiting_bytes > _MOST_WAITING:
            await asyncio.shield(self._storing)

    async def close(self) -> tuple[int, list[bytes]]:
        """No more chunks come: the number of the first that is not stored yet, and all from there on."""
        self._closed = True
        if self._storing is not None:
            await self._storing
        return self._stored, self._waiting

    async def _store(self) -> None:
        while self._waiting and not self._closed:
            bodies, self._waiting, self._waiting_bytes = self._waiting, [], 0
            if not await self._append(self._stored, bodies):
                self._closed = True
                self._revoked()
                return
            self._stored += len(bodies)
