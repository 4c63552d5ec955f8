"""What a step will do, and what came of it. Both are plain values: no tensor, no live sequence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from headrace.core.request import TokenLogprobs
from headrace.core.sampling import TokenSampling

if TYPE_CHECKING:
    from headrace.grammar.state import GrammarState


@dataclass(frozen=True, slots=True)
class TokenHistory:
    """A sequence's tokens, for logits rules that look back (penalties, bad words).

    `prompt_ids` is the request's own list, which nobody changes; `output_ids` is a copy made for this step.
    """

    prompt_ids: list[int]
    output_ids: list[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRow:
    """One sequence's share of a step: `token_ids` at positions `start`, `start + 1`, ….

    `block_table[p // block_size]` is the block of position p, for all positions up to the chunk's last.
    `samples`: the chunk reaches the sequence's last known token, so the step yields its next one; it will be output
    number `output_index` of choice `choice` (the position of the random draw).
    `history` is present where `samples` is true and `sampling.reads_output`, `grammar` where `samples` is true and the
    sequence has to follow one: the one live object of a plan, which stays as it is until `commit`.
    `prompt_logprobs_from`: the first prompt position whose logprobs are still owed, or None; the row owes those of
    positions max(prompt_logprobs_from, start + 1) … min(start + len(token_ids), prompt length - 1), and
    `next_prompt_id` is the prompt token after the chunk (None at the prompt's end).
    """

    request_id: str
    choice: int
    token_ids: list[int]
    start: int
    block_table: list[int]
    sampling: TokenSampling
    samples: bool
    output_index: int
    history: TokenHistory | None = None
    prompt_logprobs_from: int | None = None
    next_prompt_id: int | None = None
    grammar: GrammarState | None = None


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The rows of a step, at least one, and the block copies `(source, target)` to make before it."""

    rows: list[PlanRow]
    block_copies: list[tuple[int, int]] = field(default_factory=list)

    @property
    def num_tokens(self) -> int:
        return sum(len(row.token_ids) for row in self.rows)


@dataclass(frozen=True, slots=True)
class RowResult:
    """What the step gave one row. `token_id` is None where the row does not sample; `error` ends the sequence.

    `refused`: the error comes of what the request asks for, not of this engine.
    """

    token_id: int | None = None
    logprobs: TokenLogprobs | None = None
    prompt_logprobs: list[TokenLogprobs] = field(default_factory=list)
    error: str | None = None
    refused: bool = False


@dataclass(frozen=True, slots=True)
class StepResult:
    """Results in the order of the plan's rows. `mask_seconds`: what it took to find the tokens that grammars allow."""

    rows: list[RowResult]
    mask_seconds: float = 0.0
