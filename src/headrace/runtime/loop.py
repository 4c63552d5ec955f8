"""The life of a loaded engine: take messages, step while there is work, report, sleep when idle."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.core.errors import BadRequest
from headrace.core.request import FinishReason, Request, SequenceOutput, StepOutput
from headrace.runtime.messages import Abort, Stop, Submit

if TYPE_CHECKING:
    from headrace.engine import Engine

Command = Submit | Abort | Stop


def run_engine(engine: Engine, receive: Callable[[bool], list[Command]], send: Callable[[StepOutput], None]) -> None:
    """Serve until a `Stop` arrives.

    `receive(wait)` returns the commands that are there; with `wait` it blocks until there is at least one.
    """
    while True:
        refused: list[SequenceOutput] = []
        for command in receive(not engine.has_work):
            match command:
                case Submit(request=request):
                    try:
                        engine.add(request)
                    except BadRequest as error:
                        refused += [_refusal(request, choice, error) for choice in range(request.n)]
                case Abort(request_id=request_id, choice=choice):
                    engine.abort(request_id, choice)
                case Stop():
                    return
        if refused:
            send(StepOutput(refused, engine.stats))
        # After an abort there may be nothing to run, but the gauges must still fall.
        output = engine.step() if engine.has_work else None
        send(output if output is not None else StepOutput([], engine.stats))


def _refusal(request: Request, choice: int, error: BadRequest) -> SequenceOutput:
    return SequenceOutput(request.request_id, choice, finish_reason=FinishReason.ERROR, error=error.message)
