"""The state of one request's beam search between its steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from headrace.core.request import BeamSearch, FinishReason, Request, SequenceOutput, TokenLogprobs
from headrace.core.sampling import TokenSampling
from headrace.schedule.beam_search import Continuation, continuations, is_decided, num_candidates, score
from headrace.schedule.sequence import Sequence


@dataclass(slots=True, eq=False)
class Beam:
    """A sequence of a search, what its output tokens cost, and their log-probabilities where they are to be told.

    `candidates` are the best tokens after it, once a step has found them; it then waits for the other beams.
    """

    sequence: Sequence
    cumulative_logprob: float = 0.0
    logprobs: list[TokenLogprobs] = field(default_factory=list)
    candidates: TokenLogprobs | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """A beam as it can be told, finished or not."""

    token_ids: list[int]
    cumulative_logprob: float
    score: float
    logprobs: list[TokenLogprobs]
    finish_reason: FinishReason


class Search:
    """The beams of a request, best first, and the best that have finished. Only the scheduler changes it, and its
    sequences are changed by the scheduler alone.

    All beams have equally many tokens. They are continued together, by `extend`, as soon as each has its candidates:
    beams can fall out of step, for the budget, seats or blocks may not suffice for all of them at once.

    `request` is the caller's, but for the sampling of its rows: a step's best tokens are all that a search needs.
    `choices` are those that still have to be told of.
    """

    def __init__(self, request: Request, rules: BeamSearch, max_model_len: int) -> None:
        asked = request.sampling
        self.request = replace(request, sampling=_row_sampling(asked, rules.width))
        self.beams: list[Beam] = []
        self.choices = set(range(request.n))
        self._rules = rules
        self._told_logprobs = asked.logprobs
        self._eos_token_id = None if asked.ignore_eos else asked.eos_token_id
        self._prompt_len = len(request.prompt_ids)
        self._longest = min(self._prompt_len + asked.max_tokens, max_model_len)
        self._finished: list[Answer] = []

    @property
    def width(self) -> int:
        return self._rules.width

    @property
    def is_complete(self) -> bool:
        """Whether every beam has its candidates."""
        return all(beam.candidates is not None for beam in self.beams)

    def start(self, leader: Sequence) -> None:
        """The only beam so far is the prompt."""
        self.beams = [Beam(leader)]

    def offer(self, sequence: Sequence, candidates: TokenLogprobs) -> None:
        """What the step found to follow `sequence`, one of the beams."""
        (beam,) = (beam for beam in self.beams if beam.sequence is sequence)
        beam.candidates = candidates

    def extend(self) -> list[Continuation]:
        """Finish the beams that have come to their end. Returns the continuations that go on, in the order of their
        rank; none if the search is over.
        """
        going_on, finishing = continuations(
            self._rules,
            [beam.cumulative_logprob for beam in self.beams],
            [beam.candidates for beam in self.beams if beam.candidates is not None],
            self._eos_token_id,
        )
        self._finish(finishing, FinishReason.STOP)
        length = self.beams[0].sequence.num_known + 1
        if length == self._longest:
            self._finish(going_on, FinishReason.LENGTH)
            return []
        if (
            going_on
            and len(self._finished) == self.width
            and is_decided(self._rules, self._finished[-1].score, going_on[0].cumulative_logprob, length, self._longest)
        ):
            return []
        return going_on

    def go_on(self, going_on: Iterable[tuple[Continuation, Sequence]]) -> None:
        """The continuations that `extend` returned are the beams now, each the sequence beside it."""
        self.beams = [
            Beam(sequence, continuation.cumulative_logprob, self._logprobs(continuation))
            for continuation, sequence in going_on
        ]

    def best(self) -> list[list[int]]:
        """The output of the `n` best beams so far, without end-of-sequence tokens; none unless they are to be shown."""
        if not self._rules.shown:
            return []
        live = [
            Answer(
                beam.sequence.output_ids.copy(),
                beam.cumulative_logprob,
                score(beam.cumulative_logprob, beam.sequence.num_known, self._rules.length_penalty),
                beam.logprobs,
                FinishReason.LENGTH,
            )
            for beam in self.beams
        ]
        return [
            answer.token_ids[:-1] if answer.finish_reason is FinishReason.STOP else answer.token_ids
            for answer in _ranked(self._finished + live)[: self.request.n]
        ]

    def answers(self) -> list[SequenceOutput]:
        """What is to be told of each choice now that the search is over."""
        return [self._output(choice) for choice in sorted(self.choices)]

    def endings(self, reason: FinishReason, error: str | None = None, *, refused: bool = False) -> list[SequenceOutput]:
        """What is to be told of each choice where the search has been ended from outside."""
        request_id = self.request.request_id
        return [
            SequenceOutput(request_id, choice, finish_reason=reason, error=error, refused=refused)
            for choice in sorted(self.choices)
        ]

    def _output(self, choice: int) -> SequenceOutput:
        request_id = self.request.request_id
        if choice >= len(self._finished):
            return SequenceOutput(
                request_id,
                choice,
                finish_reason=FinishReason.ERROR,
                error=f"The beam search found only {len(self._finished)} answers that the model gives any probability.",
            )
        answer = self._finished[choice]
        return SequenceOutput(
            request_id,
            choice,
            token_ids=answer.token_ids,
            logprobs=answer.logprobs,
            finish_reason=answer.finish_reason,
            stop_reason=self._eos_token_id if answer.finish_reason is FinishReason.STOP else None,
            cumulative_logprob=answer.cumulative_logprob,
        )

    def _finish(self, ended: Iterable[Continuation], reason: FinishReason) -> None:
        """Keep of all that have finished the `width` best."""
        penalty = self._rules.length_penalty
        answers = []
        for continuation in ended:
            sequence = self.beams[continuation.beam].sequence
            length = sequence.num_known + (reason is not FinishReason.STOP)
            answers.append(
                Answer(
                    [*sequence.output_ids, continuation.token_id],
                    continuation.cumulative_logprob,
                    score(continuation.cumulative_logprob, length, penalty),
                    self._logprobs(continuation),
                    reason,
                )
            )
        self._finished = _ranked(self._finished + answers)[: self.width]

    def _logprobs(self, continuation: Continuation) -> list[TokenLogprobs]:
        beam = self.beams[continuation.beam]
        told = self._told_logprobs
        if told is None or (best := beam.candidates) is None:
            return []
        logprob = best.top_logprobs[continuation.place]
        return [
            *beam.logprobs,
            TokenLogprobs(
                token_id=continuation.token_id,
                logprob=logprob,
                rank=best.top_logprobs.index(logprob) + 1,
                top_ids=best.top_ids[:told],
                top_logprobs=best.top_logprobs[:told],
            ),
        ]

    def check(self, live: Iterable[Sequence]) -> None:
        """Raises `AssertionError` unless the beams are the request's sequences `live`, level, and not all waiting."""
        sequences = [beam.sequence for beam in self.beams]
        assert set(sequences) == set(live)
        assert 1 <= len(sequences) <= self.width
        assert not self.is_complete, "a search stands still"
        assert {sequence.choice for sequence in sequences} <= set(range(self.width))
        assert len({sequence.num_known for sequence in sequences}) == 1, "one beam is ahead of another"
        assert len({tuple(sequence.output_ids) for sequence in sequences}) == len(sequences), "two equal beams"
        for beam in self.beams:
            assert beam.sequence.rests == (beam.candidates is not None)


def _row_sampling(asked: TokenSampling, width: int) -> TokenSampling:
    return TokenSampling(
        temperature=0.0,
        seed=0,
        max_tokens=asked.max_tokens,
        logprobs=max(num_candidates(width), asked.logprobs or 0),
        prompt_logprobs=asked.prompt_logprobs,
    )


def _ranked(answers: Iterable[Answer]) -> list[Answer]:
    return sorted(answers, key=lambda answer: -answer.score)
