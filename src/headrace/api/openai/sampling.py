"""Sampling values of a body: request, else generation config, else built-in default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.openai.schema import ChatRequest, CompletionRequest, GenerationBody
from headrace.core.errors import BadRequest
from headrace.core.sampling import SamplingParams

FROM_GENERATION_CONFIG = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
)


def completion_sampling(body: CompletionRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """`max_tokens` 0 is for `echo` alone. The engine always generates a token, so one is asked for and not shown."""
    if body.max_tokens == 0 and not body.echo:
        raise BadRequest("max_tokens must be at least 1 unless echo is true, got 0.", parameter="max_tokens", value=0)
    nothing_wanted = body.max_tokens == 0
    echoed = body.logprobs if body.echo else None
    return SamplingParams(
        max_tokens=1 if nothing_wanted else body.max_tokens,
        min_tokens=0 if nothing_wanted else body.min_tokens,
        logprobs=body.logprobs,
        prompt_logprobs=_wider(body.prompt_logprobs, echoed),
        **_common(body, defaults),
    )


def chat_sampling(body: ChatRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    if body.top_logprobs != 0 and not body.logprobs:
        raise BadRequest(
            "top_logprobs can only be used when logprobs is true.", parameter="top_logprobs", value=body.top_logprobs
        )
    return SamplingParams(
        max_tokens=body.max_tokens if body.max_completion_tokens is None else body.max_completion_tokens,
        min_tokens=body.min_tokens,
        logprobs=body.top_logprobs if body.logprobs else None,
        prompt_logprobs=body.prompt_logprobs,
        **_common(body, defaults),
    )


def _common(body: GenerationBody, defaults: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {
        "n": body.n,
        "seed": body.seed,
        "stop": () if body.stop is None else body.stop,
        "stop_token_ids": tuple(body.stop_token_ids or ()),
        "include_stop_str_in_output": body.include_stop_str_in_output,
        "ignore_eos": body.ignore_eos,
        "bad_words": tuple(body.bad_words or ()),
        "allowed_token_ids": body.allowed_token_ids,
        "logit_bias": body.logit_bias or {},
        "skip_special_tokens": body.skip_special_tokens,
        "spaces_between_special_tokens": body.spaces_between_special_tokens,
    }
    for name in FROM_GENERATION_CONFIG:
        given = getattr(body, name)
        if (value := defaults.get(name) if given is None else given) is not None:
            values[name] = value
    return values


def _wider(first: int | None, second: int | None) -> int | None:
    """The count of alternatives that covers both; -1 is the whole vocabulary."""
    counts = [count for count in (first, second) if count is not None]
    if not counts:
        return None
    return -1 if -1 in counts else max(counts)
