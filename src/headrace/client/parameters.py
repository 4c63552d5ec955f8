"""What a request may hold beside its prompt, by the names of the wire.

These are for type checkers and editors. They hold a client back from nothing: a name that is not listed is sent as it
is, and the server decides; `extra_body` is for those that a type checker shall accept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

Message = Mapping[str, Any]
"""One turn of a conversation: `{"role": "user", "content": "Hello"}`."""


class Sampling(TypedDict, total=False):
    """What every route that generates knows. What is left out is the server's, or the model's, default."""

    n: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    seed: int
    presence_penalty: float
    frequency_penalty: float
    repetition_penalty: float
    max_tokens: int
    min_tokens: int
    stop: str | Sequence[str]
    stop_token_ids: Sequence[int]
    include_stop_str_in_output: bool
    ignore_eos: bool
    logit_bias: Mapping[str, float]
    allowed_token_ids: Sequence[int]
    bad_words: Sequence[str]
    prompt_logprobs: int
    logprob_token_ids: Sequence[int]
    skip_special_tokens: bool
    spaces_between_special_tokens: bool
    use_beam_search: bool
    length_penalty: float
    early_stopping: bool | Literal["never"]
    structured_outputs: Mapping[str, Any]


class LegacySampling(Sampling, total=False):
    best_of: int


class SamplingParams(Sampling, total=False):
    """The `sampling_params` of a token request."""

    best_of: int
    logprobs: int
    detokenize: bool


class Common(TypedDict, total=False):
    """About a request as a whole. `model`: default is the client's."""

    model: str
    stream_options: Mapping[str, bool]
    request_id: str
    priority: int
    cache_salt: str
    return_token_ids: bool
    extra_body: Mapping[str, Any]


class Generation(Sampling, Common, total=False):
    echo: bool
    truncate_prompt_tokens: int
    truncation_side: Literal["left", "right"]
    add_special_tokens: bool
    return_tokens_as_token_ids: bool
    user: str


class CompletionParameters(Generation, total=False):
    """`best_of`: sample so many, answer with the best `n`."""

    best_of: int
    logprobs: int
    suffix: str


class ChatParameters(Generation, total=False):
    max_completion_tokens: int
    logprobs: bool
    top_logprobs: int
    add_generation_prompt: bool
    continue_final_message: bool
    chat_template: str
    chat_template_kwargs: Mapping[str, Any]
    documents: Sequence[Mapping[str, str]]
    reasoning_effort: str
    response_format: Mapping[str, Any]
    tools: Sequence[Mapping[str, Any]]
    tool_choice: str | Mapping[str, Any]
    parallel_tool_calls: bool
    return_prompt_text: bool


class TokensParameters(Common, total=False):
    output_mode: Literal["tokens", "text"]


class PoolingParameters(TypedDict, total=False):
    """What the routes know that answer with vectors and scores.

    `use_activation`: whether vectors are normalised and scores activated; default: as the model has it.
    """

    model: str
    user: str
    request_id: str
    priority: int
    cache_salt: str
    truncate_prompt_tokens: int
    truncation_side: Literal["left", "right"]
    add_special_tokens: bool
    use_activation: bool
    extra_body: Mapping[str, Any]


class EmbedParameters(PoolingParameters, total=False):
    """`dimensions`: how many values of each vector are kept, by models made for that."""

    dimensions: int
    add_generation_prompt: bool
    chat_template: str
    chat_template_kwargs: Mapping[str, Any]


class TokenizeParameters(TypedDict, total=False):
    model: str
    add_special_tokens: bool
    return_token_strs: bool
    add_generation_prompt: bool
    continue_final_message: bool
    chat_template: str
    chat_template_kwargs: Mapping[str, Any]
