"""The streams of one engine: outputs in, each to the request it belongs to."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial

from headrace.core.errors import EngineDead
from headrace.core.pooling import PoolingOutput, PoolingRequest
from headrace.core.request import Request, StepOutput
from headrace.runtime.client import RequestStream


class Streams:
    """Requests in flight, by id. Lives on the event loop."""

    def __init__(self, abort: Callable[[str, int | None], None]) -> None:
        self._abort = abort
        self._open: dict[str, RequestStream] = {}
        self._pooling: dict[str, asyncio.Future[PoolingOutput]] = {}

    def open(self, request: Request) -> RequestStream:
        if request.request_id in self._open:
            raise ValueError(f"Request id {request.request_id!r} is in use.")
        stream = RequestStream(request, self._end)
        self._open[request.request_id] = stream
        return stream

    def open_pooling(self, request: PoolingRequest) -> asyncio.Future[PoolingOutput]:
        """What will come of a request; cancelling it aborts the request."""
        if request.request_id in self._pooling:
            raise ValueError(f"Request id {request.request_id!r} is in use.")
        pooled: asyncio.Future[PoolingOutput] = asyncio.get_running_loop().create_future()
        pooled.add_done_callback(partial(self._end_pooling, request.request_id))
        self._pooling[request.request_id] = pooled
        return pooled

    def deliver(self, output: StepOutput) -> None:
        for pooled in output.pooled:
            future = self._pooling.pop(pooled.request_id, None)
            if future is not None and not future.done():
                future.set_result(pooled)
        for sequence in output.sequences:
            stream = self._open.get(sequence.request_id)
            if stream is None:
                continue  # aborted while this step ran
            stream.deliver(sequence)
            if stream.finished:
                del self._open[sequence.request_id]

    def fail_all(self, error: EngineDead) -> None:
        streams, self._open = self._open, {}
        for stream in streams.values():
            stream.fail(error)
        futures, self._pooling = self._pooling, {}
        for future in futures.values():
            if not future.done():
                future.set_exception(error)

    def _end(self, request_id: str, choice: int | None) -> None:
        stream = self._open.get(request_id)
        if stream is None:
            return
        if choice is None or stream.finished:
            del self._open[request_id]
        self._abort(request_id, choice)

    def _end_pooling(self, request_id: str, pooled: asyncio.Future[PoolingOutput]) -> None:
        if self._pooling.get(request_id) is pooled:  # it was cancelled: else it would have been taken out
            del self._pooling[request_id]
            self._abort(request_id, None)
