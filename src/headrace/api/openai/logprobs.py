"""Log-probabilities in the form of completions; `api/logprobs.py` has the others."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.logprobs import as_placeholder, best, shown_alternatives
from headrace.api.openai.wire import CompletionLogprobs
from headrace.api.wire import finite
from headrace.service import PositionLogprobs


class CompletionLogprobsWriter:
    """The `logprobs` of one choice, in as many pieces as it is streamed in: text offsets run on across them.

    `count` alternatives a token; of an answer's tokens instead all the `token_ids` that were asked for, if any were.
    With `as_ids` a token is shown as `token_id:<id>`, also in the offsets.
    """

    def __init__(self, count: int, *, as_ids: bool, token_ids: Sequence[int] | None = None) -> None:
        self._count = count
        self._answer_count = shown_alternatives(count, token_ids)
        self._as_ids = as_ids
        self._offset = 0

    def write(
        self,
        positions: Sequence[PositionLogprobs],
        *,
        first_of_prompt: tuple[int, str] | None = None,
        rest_of_prompt: Sequence[PositionLogprobs] = (),
    ) -> CompletionLogprobs:
        """`positions` of the answer, behind those of an echoed prompt: the id and the text of its first token, which
        has no log-probability, then the rest.
        """
        piece = CompletionLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        if first_of_prompt is not None:
            self._append(piece, self._name(*first_of_prompt), None, None)
        for position in rest_of_prompt:
            self._append_position(piece, position, self._count)
        for position in positions:
            self._append_position(piece, position, self._answer_count)
        return piece

    def _append_position(self, piece: CompletionLogprobs, position: PositionLogprobs, count: int) -> None:
        chosen = position.chosen
        shown = [chosen, *best(position, count)]
        top = {self._name(token.token_id, token.text): finite(token.logprob) for token in shown}
        self._append(piece, self._name(chosen.token_id, chosen.text), finite(chosen.logprob), top)

    def _append(
        self, piece: CompletionLogprobs, token: str, logprob: float | None, top: dict[str, float] | None
    ) -> None:
        piece.text_offset.append(self._offset)
        piece.token_logprobs.append(logprob)
        piece.tokens.append(token)
        piece.top_logprobs.append(top)
        self._offset += len(token)

    def _name(self, token_id: int, text: str) -> str:
        return as_placeholder(token_id) if self._as_ids else text
