"""What is told of a beam search: the beams while it runs, and its answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from headrace.core.request import BeamSearch, FinishReason, SequenceOutput
from headrace.core.sampling import SamplingParams
from headrace.service.answer_text import AnswerText
from headrace.service.types import Beam, Delta
from headrace.text import Tokenizer


class BeamReader:
    """Gives beams their text; with `tokenizer` None they have none. `sampling` must have no stop strings."""

    def __init__(self, prompt_ids: Sequence[int], sampling: SamplingParams, tokenizer: Tokenizer | None) -> None:
        self._prompt_ids = prompt_ids
        self._sampling = sampling
        self._tokenizer = tokenizer

    def read(self, beams: Sequence[list[int]]) -> list[Beam]:
        """Any thread may call it: a beam is decoded from its beginning."""
        return [Beam(self._text(token_ids), token_ids) for token_ids in beams]

    def _text(self, token_ids: Sequence[int]) -> str:
        if self._tokenizer is None:
            return ""
        text, _, _ = AnswerText(self._prompt_ids, self._sampling, self._tokenizer).push(token_ids)
        return text

    def answer(self, delta: Delta, output: SequenceOutput) -> Delta:
        """`delta` is all that `output` says, and what an answer of a search says beyond that is added."""
        told = len(delta.token_ids)
        if delta.finish_reason is FinishReason.STOP and not self._sampling.include_stop_str_in_output:
            told -= 1
        return replace(
            delta,
            token_ids=delta.token_ids[:told],
            logprobs=delta.logprobs[:told],
            cumulative_logprob=output.cumulative_logprob,
        )


def beam_search(sampling: SamplingParams, *, shown: bool) -> BeamSearch:
    """What the engine is asked to search for."""
    return BeamSearch(
        width=sampling.num_candidates,
        length_penalty=float(sampling.length_penalty),
        early_stopping=sampling.early_stopping,
        shown=shown,
    )


def without_stop_strings(sampling: SamplingParams) -> SamplingParams:
    """A search looks at no text: nothing but the end-of-sequence token or its length ends a beam."""
    return replace(sampling, stop=(), min_tokens=0)
