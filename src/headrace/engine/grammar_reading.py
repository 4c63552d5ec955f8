"""Requests whose grammar is being read: that may take a second, and no step is to wait for it."""

from __future__ import annotations

from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.core.errors import BadRequest
from headrace.core.request import FinishReason, Request, SequenceOutput
from headrace.core.vocabulary import Vocabulary
from headrace.grammar.errors import BadConstraint

if TYPE_CHECKING:
    from headrace.grammar.state import GrammarReader, GrammarState


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """A request, where its answers begin in its grammar, and the choices that were aborted meanwhile."""

    request: Request
    state: GrammarState
    aborted: list[int]


@dataclass(slots=True)
class _Reading:
    request: Request
    state: Future[GrammarState]
    aborted: list[int] = field(default_factory=list)


class GrammarReading:
    """Reads grammars one after the other in a thread of its own, beside the engine's, which alone calls this."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="headrace-grammar")
        self._reader: Future[GrammarReader] | None = None
        self._readings: dict[str, _Reading] = {}

    def __bool__(self) -> bool:
        return bool(self._readings)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._readings

    def learn(self, vocabulary: Vocabulary) -> None:
        self._reader = self._thread.submit(_new_reader, vocabulary, self._vocab_size)

    def add(self, request: Request) -> None:
        """Raises `BadRequest` if there is no vocabulary to read its grammar with."""
        reader, grammar = self._reader, request.sampling.grammar
        if reader is None or grammar is None:
            raise BadRequest("The engine has not been told the vocabulary that grammars need.", parameter="grammar")
        self._readings[request.request_id] = _Reading(
            request, self._thread.submit(lambda: reader.result().read(grammar))
        )

    def abort(self, request_id: str, choice: int | None) -> list[SequenceOutput]:
        """End one choice of a request that is among those, or all."""
        reading = self._readings[request_id]
        choices = range(reading.request.n) if choice is None else [choice]
        ending = [one for one in choices if one not in reading.aborted]
        reading.aborted += ending
        if len(reading.aborted) == reading.request.n:
            reading.state.cancel()
            del self._readings[request_id]
        return [SequenceOutput(request_id, one, finish_reason=FinishReason.ABORT) for one in ending]

    def take(self, patience: float) -> tuple[list[ReadRequest], list[SequenceOutput]]:
        """The requests that can run, and what is to be told of those that cannot. Waits up to `patience` seconds for
        the first.
        """
        wait([reading.state for reading in self._readings.values()], patience, FIRST_COMPLETED)
        ready: list[ReadRequest] = []
        failed: list[SequenceOutput] = []
        for request_id, reading in list(self._readings.items()):
            if not reading.state.done():
                continue
            del self._readings[request_id]
            if (error := reading.state.exception()) is None:
                ready.append(ReadRequest(reading.request, reading.state.result(), reading.aborted))
            else:
                problem = f"The grammar cannot be read: {error}"
                refused = isinstance(error, BadConstraint)
                failed += endings(reading.request, problem, but=reading.aborted, refused=refused)
        return ready, failed


def endings(request: Request, error: str, *, but: list[int], refused: bool) -> list[SequenceOutput]:
    """What is to be told of a request that fails before it runs; nothing of the choices `but`."""
    return [
        SequenceOutput(request.request_id, choice, finish_reason=FinishReason.ERROR, error=error, refused=refused)
        for choice in range(request.n)
        if choice not in but
    ]


def _new_reader(vocabulary: Vocabulary, vocab_size: int) -> GrammarReader:
    from headrace.grammar.state import GrammarReader  # llguidance, which most servers never need

    return GrammarReader(vocabulary, vocab_size)
