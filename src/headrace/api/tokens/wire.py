"""Bodies of responses."""

from __future__ import annotations

from msgspec import UNSET, UnsetType

from headrace.api.logprobs import ChatLogprobs, PromptLogprobs
from headrace.api.usage import Usage
from headrace.api.wire import Wire


class TokenLogprob(Wire, kw_only=True):
    token_id: int
    logprob: float
    rank: int


class TokenPosition(Wire, kw_only=True):
    token_id: int
    logprob: float
    rank: int
    top_logprobs: list[TokenLogprob]


class TokensLogprobs(Wire, kw_only=True):
    content: list[TokenPosition]


class WeightVersion(Wire, kw_only=True):
    """Which weights made the tokens from `start` up to `end`. They never change here."""

    version: str = "0"
    start: int = 0
    end: int


class TokensChoice(Wire, kw_only=True):
    """`text` is there in the output mode of that name only."""

    index: int
    text: str | UnsetType = UNSET
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int]
    logprobs: TokensLogprobs | ChatLogprobs | None
    routed_experts: None = None
    sampling_mask: None = None
    weight_versions: list[WeightVersion]


class TokensAnswer(Wire, kw_only=True):
    request_id: str
    model: str
    created: int
    output_mode: str
    choices: list[TokensChoice]
    usage: Usage
    prompt_logprobs: PromptLogprobs | None
    prompt_token_ids: list[int] | None
    prompt_token_id_logprobs: None = None
    mm_placeholders: None = None
    metrics: None = None
    kv_transfer_params: None = None
    ec_transfer_params: None = None


class TokensChunkChoice(Wire, kw_only=True):
    index: int
    text: str | UnsetType = UNSET
    finish_reason: str | None
    stop_reason: int | str | None
    token_ids: list[int]
    logprobs: TokensLogprobs | ChatLogprobs | None


class TokensChunk(Wire, kw_only=True):
    request_id: str
    output_mode: str
    usage: Usage | None
    choices: list[TokensChunkChoice]
    prompt_token_ids: list[int] | UnsetType = UNSET
