"""Log-probabilities in the forms that several families share: of an answer's tokens as chats show them, of a prompt."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.api.wire import Wire, finite
from headrace.service import PositionLogprobs, TokenChoice


class PromptToken(Wire, kw_only=True):
    logprob: float
    rank: int
    decoded_token: str | None


PromptLogprobs = list[dict[str, PromptToken] | None]


class ChatToken(Wire, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]


class ChatTokenLogprobs(Wire, kw_only=True):
    token: str
    logprob: float
    bytes: list[int]
    top_logprobs: list[ChatToken]


class ChatLogprobs(Wire, kw_only=True):
    content: list[ChatTokenLogprobs]


def shown_alternatives(count: int, token_ids: Sequence[int] | None) -> int:
    """How many alternatives a position shows; where certain `token_ids` were asked for, all of them (-1)."""
    return count if token_ids is None else -1


def best(position: PositionLogprobs, count: int) -> list[TokenChoice]:
    """The `count` best tokens at a position; -1 is all of them."""
    return position.top if count == -1 else position.top[:count]


def chosen_first(position: PositionLogprobs, count: int) -> list[TokenChoice]:
    """The first `count` (-1: all) of the chosen token and the best ones; it leads, even where better ones stood to
    choose, and comes once.
    """
    chosen = position.chosen
    ordered = [chosen, *(token for token in position.top if token.token_id != chosen.token_id)]
    return ordered if count == -1 else ordered[:count]


def chat_logprobs(positions: Sequence[PositionLogprobs], count: int, *, as_ids: bool) -> ChatLogprobs:
    """With `as_ids` a token is shown as `token_id:<id>`; the bytes of a chosen one stay those of its text."""
    return ChatLogprobs(content=[_chat_position(position, count, as_ids=as_ids) for position in positions])


def _chat_position(position: PositionLogprobs, count: int, *, as_ids: bool) -> ChatTokenLogprobs:
    chosen = position.chosen
    top = []
    for token in chosen_first(position, count):
        name = as_placeholder(token.token_id) if as_ids else token.text
        top.append(ChatToken(token=name, logprob=finite(token.logprob), bytes=list(name.encode())))
    return ChatTokenLogprobs(
        token=as_placeholder(chosen.token_id) if as_ids else chosen.text,
        logprob=finite(chosen.logprob),
        bytes=list(chosen.text.encode()),
        top_logprobs=top,
    )


def prompt_logprobs(
    positions: Sequence[PositionLogprobs | None], count: int, *, with_text: bool = True
) -> PromptLogprobs:
    """One entry a prompt token, None for the first; each the actual token and the `count` best, by id."""
    return [None if position is None else _prompt_position(position, count, with_text) for position in positions]


def _prompt_position(position: PositionLogprobs, count: int, with_text: bool) -> dict[str, PromptToken]:
    return {
        str(token.token_id): PromptToken(
            logprob=finite(token.logprob), rank=token.rank, decoded_token=token.text if with_text else None
        )
        for token in (position.chosen, *best(position, count))
    }


def as_placeholder(token_id: int) -> str:
    return f"token_id:{token_id}"
