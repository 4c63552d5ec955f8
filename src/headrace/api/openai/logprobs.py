"""Log-probabilities in the three forms of the contract: completions, chat, prompt."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.openai.wire import (
    ChatLogprobs,
    ChatToken,
    ChatTokenLogprobs,
    CompletionLogprobs,
    PromptLogprobs,
    PromptToken,
)
from headrace.service import PositionLogprobs, TokenChoice

LOWEST = -9999.0
"""Written instead of minus infinity, which JSON has no name for."""


def finite(logprob: float) -> float:
    return max(logprob, LOWEST)


def best(position: PositionLogprobs, count: int) -> list[TokenChoice]:
    """The `count` best tokens at a position; -1 is all of them."""
    return position.top if count == -1 else position.top[:count]


class CompletionLogprobsWriter:
    """The `logprobs` of one choice, in as many pieces as it is streamed in: text offsets run on across them.

    `count` alternatives a token. With `as_ids` a token is shown as `token_id:<id>`, also in the offsets.
    """

    def __init__(self, count: int, *, as_ids: bool) -> None:
        self._count = count
        self._as_ids = as_ids
        self._offset = 0

    def write(
        self, positions: Sequence[PositionLogprobs], *, first_of_prompt: tuple[int, str] | None = None
    ) -> CompletionLogprobs:
        """`first_of_prompt`: id and text of the echoed prompt's first token, which has no log-probability."""
        piece = CompletionLogprobs(text_offset=[], token_logprobs=[], tokens=[], top_logprobs=[])
        if first_of_prompt is not None:
            self._append(piece, self._name(*first_of_prompt), None, None)
        for position in positions:
            chosen = position.chosen
            shown = [chosen, *best(position, self._count)]
            top = {self._name(token.token_id, token.text): finite(token.logprob) for token in shown}
            self._append(piece, self._name(chosen.token_id, chosen.text), finite(chosen.logprob), top)
        return piece

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


def chat_logprobs(positions: Sequence[PositionLogprobs], count: int, *, as_ids: bool) -> ChatLogprobs:
    return ChatLogprobs(content=[_chat_position(position, count, as_ids=as_ids) for position in positions])


def _chat_position(position: PositionLogprobs, count: int, *, as_ids: bool) -> ChatTokenLogprobs:
    chosen = position.chosen
    # The chosen token leads, even where better ones stood to choose.
    ordered = [chosen, *(token for token in position.top if token.token_id != chosen.token_id)]
    top = []
    for token in ordered if count == -1 else ordered[:count]:
        name = as_placeholder(token.token_id) if as_ids else token.text
        top.append(ChatToken(token=name, logprob=finite(token.logprob), bytes=list(name.encode())))
    return ChatTokenLogprobs(
        token=as_placeholder(chosen.token_id) if as_ids else chosen.text,
        logprob=finite(chosen.logprob),
        bytes=list(chosen.text.encode()),
        top_logprobs=top,
    )


def prompt_logprobs(positions: Sequence[PositionLogprobs | None], count: int) -> PromptLogprobs:
    """One entry a prompt token, None for the first; each the actual token and the `count` best, by id."""
    return [None if position is None else _prompt_position(position, count) for position in positions]


def _prompt_position(position: PositionLogprobs, count: int) -> dict[str, PromptToken]:
    return {
        str(token.token_id): PromptToken(logprob=finite(token.logprob), rank=token.rank, decoded_token=token.text)
        for token in (position.chosen, *best(position, count))
    }


def as_placeholder(token_id: int) -> str:
    return f"token_id:{token_id}"
