"""The streams of one engine: outputs in, each to the request it belongs to."""

from __future__ import annotations

from collections.abc import Callable

from headrace.core.errors import EngineDead
from headrace.core.request import Request, StepOutput
from headrace.runtime.client import RequestStream


class Streams:
    """Requests in flight, by id. Lives on the event loop."""

    def __init__(self, abort: Callable[[str, int | None], None]) -> None:
        self._abort = abort
        self._open: dict[str, RequestStream] = {}

    def open(self, request: Request) -> RequestStream:
        if request.request_id in self._open:
            raise ValueError(f"Request id {request.request_id!r} is in use.")
        stream = RequestStream(request, self._end)
        self._open[request.request_id] = stream
        return stream

    def deliver(self, output: StepOutput) -> None:
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

    def _end(self, request_id: str, choice: int | None) -> None:
        stream = self._open.get(request_id)
        if stream is None:
            return
        if choice is None or stream.finished:
            del self._open[request_id]
        self._abort(request_id, choice)
