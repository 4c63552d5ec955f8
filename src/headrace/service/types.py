"""What a caller asks of the service, and what it hears back. Plain data, free of any protocol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from headrace.core.request import FinishReason
from headrace.core.sampling import SamplingParams

Message = Mapping[str, Any]
"""One turn of a conversation as clients send it: `role`, `content` (text, or a list of parts), `tool_calls`, …"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Generation:
    """One prompt, as text or as token ids, and how to continue it.

    `request_id` is the caller's own name for it, for logs; two live generations may share one.
    `add_special_tokens` concerns text prompts only. `truncate_prompt_tokens` keeps that many prompt tokens, -1 as many
    as leave room for one more; `truncation_side` is the end that is cut: "left" keeps the last tokens.
    `priority`: lower runs first. `cache_salt` keeps prefix-cache entries apart from those of other salts.
    `show_beams`: have the stream's `beams()` tell the best beams after each step of a beam search.
    """

    prompt: str | Sequence[int]
    sampling: SamplingParams
    request_id: str
    add_special_tokens: bool = True
    truncate_prompt_tokens: int | None = None
    truncation_side: Literal["left", "right"] = "left"
    priority: int = 0
    cache_salt: str | None = None
    show_beams: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """Messages to be put into the model's chat template.

    `chat_template_kwargs` are variables for the template beside the ones named here. With `continue_final_message`
    the last message stays open, so the model writes on in it; this needs `add_generation_prompt` to be false.
    `chat_template` takes the place of the model's own; it need not be trusted.
    """

    messages: Sequence[Message]
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    documents: Sequence[Mapping[str, Any]] | None = None
    tools: Sequence[Mapping[str, Any]] | None = None
    chat_template: str | None = None


@dataclass(frozen=True, slots=True)
class TokenChoice:
    """A token that stood to choose at one position.

    `text` is the token decoded alone, except that the token which completes a character carries it whole and the pieces
    before it are ""; it is "" throughout where the caller asked for no text. `logprob` is natural and of the raw
    distribution; `rank` is 1-based in the whole vocabulary.
    """

    token_id: int
    text: str
    logprob: float
    rank: int


@dataclass(frozen=True, slots=True)
class PositionLogprobs:
    """The token at one position and the best alternatives, best first, or those of `logprob_token_ids` in their order;
    the token need not be among them.
    """

    chosen: TokenChoice
    top: list[TokenChoice]


@dataclass(frozen=True, slots=True)
class Delta:
    """What was added to one choice since its last delta.

    `token_ids` may be longer than `text` suggests: text is held back while it could be the beginning of a stop string
    or of a character, and stop tokens have none. `logprobs` has one entry per id where they were asked for, else none.
    `finish_reason` is set on a choice's last delta only; `stop_reason` is then the stop string, or the id of the stop
    token, that ended it, None for the end-of-sequence token and for every other reason.

    An answer that is chosen at the end comes in one delta, with its `cumulative_logprob` (natural, of all its tokens).
    The end-of-sequence token of a beam is counted there and is its `stop_reason`, but is among `token_ids` only where
    `include_stop_str_in_output` asks for it.
    """

    choice: int
    text: str
    token_ids: list[int]
    logprobs: list[PositionLogprobs]
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None
    cumulative_logprob: float | None = None


@dataclass(frozen=True, slots=True)
class Beam:
    """One of the best answers that a beam search has found so far, whole; it may yet be replaced by another."""

    text: str
    token_ids: list[int]
