"""From the engine's log-probabilities to ones with text."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.request import TokenLogprobs
from headrace.service.types import PositionLogprobs, TokenChoice
from headrace.text import Tokenizer

CONTEXT = 4
"""Tokens looked back at for the beginning of a character that a token completes."""


class LogprobRenderer:
    """Gives tokens their text. `tokenizer` None: the caller wants ids only, every text is ""."""

    def __init__(self, tokenizer: Tokenizer | None) -> None:
        self._tokenizer = tokenizer

    def position(self, entry: TokenLogprobs, before: Sequence[int]) -> PositionLogprobs:
        """`before` are the ids in front of this position; the last few are enough."""
        ranks = range(1, len(entry.top_ids) + 1) if entry.top_ranks is None else entry.top_ranks
        return PositionLogprobs(
            TokenChoice(entry.token_id, self._text(entry.token_id, before), entry.logprob, entry.rank),
            [
                TokenChoice(token, self._text(token, before), logprob, rank)
                for token, logprob, rank in zip(entry.top_ids, entry.top_logprobs, ranks, strict=True)
            ],
        )

    def run(self, entries: Sequence[TokenLogprobs], before: Sequence[int]) -> list[PositionLogprobs]:
        """Consecutive positions, the first of them after the ids `before`."""
        context = list(before[-CONTEXT:])
        rendered = []
        for entry in entries:
            rendered.append(self.position(entry, context[-CONTEXT:]))
            context.append(entry.token_id)
        return rendered

    def _text(self, token_id: int, before: Sequence[int]) -> str:
        return "" if self._tokenizer is None else self._tokenizer.token_text(token_id, before)
