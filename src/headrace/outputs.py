"""What `LLM` returns. Names and fields are those that users of vLLM know."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headrace.core.request import FinishReason
from headrace.service import Delta, PositionLogprobs, TokenChoice


@dataclass(frozen=True, slots=True)
class Logprob:
    """`rank` is 1-based in the whole vocabulary; `decoded_token` is None if no text was asked for."""

    logprob: float
    rank: int
    decoded_token: str | None


PositionTable = dict[int, Logprob]
"""Token id -> its log-probability at one position: the token that is there, then the best ones in order."""


@dataclass(slots=True, kw_only=True)
class CompletionOutput:
    """One answer. `finish_reason`: "stop", "length" or "abort"; `stop_reason`: the stop string or stop token's id.
    `cumulative_logprob` is there with `logprobs`, of a beam search, and where `best_of` exceeds `n`.
    """

    index: int
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    cumulative_logprob: float | None = None
    logprobs: list[PositionTable] | None = None
    finish_reason: str | None = None
    stop_reason: int | str | None = None


@dataclass(slots=True, kw_only=True)
class RequestOutput:
    """The answers to one prompt. `prompt` is None if ids were given; the first of `prompt_logprobs` is None."""

    request_id: str
    prompt: str | None
    prompt_token_ids: list[int]
    outputs: list[CompletionOutput]
    prompt_logprobs: list[PositionTable | None] | None = None
    finished: bool = True
    num_cached_tokens: int = 0


@dataclass(slots=True, kw_only=True)
class EmbeddingOutput:
    embedding: list[float]

    @property
    def hidden_size(self) -> int:
        """How many values it has."""
        return len(self.embedding)


@dataclass(slots=True, kw_only=True)
class ClassificationOutput:
    probs: list[float]

    @property
    def num_classes(self) -> int:
        return len(self.probs)


@dataclass(slots=True, kw_only=True)
class ScoringOutput:
    score: float


@dataclass(slots=True, kw_only=True)
class PoolingOutput:
    """`data`: numbers, or for tasks per token a list of them for each token."""

    data: list[Any]


@dataclass(slots=True, kw_only=True)
class _PooledPrompt:
    """`prompt_token_ids` is what the model read."""

    request_id: str
    prompt_token_ids: list[int]
    finished: bool = True


@dataclass(slots=True, kw_only=True)
class EmbeddingRequestOutput(_PooledPrompt):
    outputs: EmbeddingOutput


@dataclass(slots=True, kw_only=True)
class ClassificationRequestOutput(_PooledPrompt):
    outputs: ClassificationOutput


@dataclass(slots=True, kw_only=True)
class ScoringRequestOutput(_PooledPrompt):
    outputs: ScoringOutput


@dataclass(slots=True, kw_only=True)
class PoolingRequestOutput(_PooledPrompt):
    outputs: PoolingOutput


def position_table(position: PositionLogprobs, *, with_text: bool) -> PositionTable:
    def entry(choice: TokenChoice) -> Logprob:
        return Logprob(choice.logprob, choice.rank, choice.text if with_text else None)

    return {choice.token_id: entry(choice) for choice in (position.chosen, *position.top)}


def completion_output(index: int, deltas: Sequence[Delta], *, logprobs: bool, with_text: bool) -> CompletionOutput:
    """One answer from all its deltas."""
    positions = [position for delta in deltas for position in delta.logprobs]
    last = deltas[-1]
    cumulative_logprob = last.cumulative_logprob
    if cumulative_logprob is None and logprobs:
        cumulative_logprob = sum(position.chosen.logprob for position in positions)
    reason: FinishReason | None = last.finish_reason
    return CompletionOutput(
        index=index,
        text="".join(delta.text for delta in deltas),
        token_ids=[token for delta in deltas for token in delta.token_ids],
        cumulative_logprob=cumulative_logprob,
        logprobs=[position_table(position, with_text=with_text) for position in positions] if logprobs else None,
        finish_reason=None if reason is None else reason.value,
        stop_reason=last.stop_reason,
    )
