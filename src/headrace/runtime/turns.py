"""The life of loaded engines that share a thread: they take their requests in, and step in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from headrace.core.errors import BadRequest
from headrace.core.pooling import PoolingOutput, PoolingRequest
from headrace.core.request import FinishReason, Request, SequenceOutput, StepOutput
from headrace.runtime.messages import Abort, Learn, Submit, SubmitPooling

if TYPE_CHECKING:
    from headrace.engine import AnyEngine, Engine, PoolingEngine

Command = Submit | SubmitPooling | Learn | Abort


class EngineTurns:
    """Engines by number. `send` is called with the number of an engine and what came of its step.

    Those that have work share the time, not the number of steps: the next to step is the one that has stepped for the
    shortest time. Time in which an engine had no work does not count in its favour.
    """

    def __init__(self, send: Callable[[int, StepOutput], None]) -> None:
        self._send = send
        self._places: dict[int, _Place] = {}

    @property
    def has_work(self) -> bool:
        return any(place.engine.has_work for place in self._places.values())

    def add(self, number: int, engine: AnyEngine) -> None:
        self._places[number] = _Place(number, engine)

    def remove(self, number: int) -> None:
        self._places.pop(number, None)

    def take(self, command: Command) -> None:
        """Hand a command to its engine; one for an engine that is gone is dropped. A refusal is sent at once."""
        place = self._places.get(command.engine)
        if place is None:
            return
        place.is_told = True
        match command:
            case Submit(request=request) | SubmitPooling(request=request):
                try:
                    _add(place.engine, request)
                except BadRequest as error:
                    self._send(place.number, _refusal(request, error, place.engine))
            case Learn(vocabulary=vocabulary):
                cast("Engine", place.engine).learn(vocabulary)
            case Abort(request_id=request_id, choice=choice):
                place.engine.abort(request_id, choice)

    def step(self) -> None:
        """Run one step of the engine whose turn it is. Engines that were told something and have no work report so."""
        for place in self._places.values():
            # After an abort there may be nothing to run, but the gauges must still fall.
            if place.is_told and not place.engine.has_work:
                self._send(place.number, StepOutput([], place.engine.stats))
            place.is_told = False
        if (turn := self._next()) is None:
            return
        began = time.monotonic()
        output = turn.engine.step()
        turn.seconds += time.monotonic() - began
        self._send(turn.number, output if output is not None else StepOutput([], turn.engine.stats))

    def _next(self) -> _Place | None:
        working = [place for place in self._places.values() if place.engine.has_work]
        if not working:
            return None
        chosen = min(working, key=lambda place: place.seconds)
        for place in self._places.values():
            if place not in working:
                place.seconds = max(place.seconds, chosen.seconds)
        return chosen


class _Place:
    """An engine, for how many `seconds` it has stepped, and whether it got a command since the last step."""

    def __init__(self, number: int, engine: AnyEngine) -> None:
        self.number = number
        self.engine = engine
        self.seconds = 0.0
        self.is_told = False


def _add(engine: AnyEngine, request: Request | PoolingRequest) -> None:
    """Raises `BadRequest`. The service sends an engine only what it is for."""
    if isinstance(request, PoolingRequest):
        cast("PoolingEngine", engine).add(request)
    else:
        cast("Engine", engine).add(request)


def _refusal(request: Request | PoolingRequest, error: BadRequest, engine: AnyEngine) -> StepOutput:
    if isinstance(request, PoolingRequest):
        refused = PoolingOutput(request_id=request.request_id, shape=[], data=b"", error=error.message)
        return StepOutput([], engine.stats, [refused])
    sequences = [
        SequenceOutput(request.request_id, choice, finish_reason=FinishReason.ERROR, error=error.message)
        for choice in range(request.n)
    ]
    return StepOutput(sequences, engine.stats)
