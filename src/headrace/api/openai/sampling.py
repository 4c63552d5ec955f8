"""Sampling values of a body: request, else generation config, else built-in default."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.openai.schema import ChatRequest, CompletionRequest, GenerationBody
from headrace.api.openai.structured import constraint
from headrace.api.sampling import FROM_GENERATION_CONFIG, with_defaults
from headrace.core.errors import BadRequest
from headrace.core.sampling import SamplingParams


def completion_sampling(body: CompletionRequest, defaults: Mapping[str, Any]) -> SamplingParams:
    """`max_tokens` 0 is for `echo` alone. The engine always generates a token, so one is asked for and not shown."""
    if body.max_tokens == 0 and not body.echo:
        raise BadRequest("max_tokens must be at least 1 unless echo is true, got 0.", parameter="max_tokens", value=0)
    nothing_wanted = body.max_tokens == 0
    if nothing_wanted and body.logprob_token_ids is not None:
        raise BadRequest(
            "logprob_token_ids are reported of generated tokens, and max_tokens is 0.", parameter="logprob_token_ids"
        )
    if body.use_beam_search and body.echo and body.logprobs is not None:
        raise BadRequest("echo with logprobs is not available with use_beam_search.", parameter="echo", value=True)
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
        "logprob_token_ids": body.logprob_token_ids,
        "logit_bias": body.logit_bias or {},
        "skip_special_tokens": body.skip_special_tokens,
        "spaces_between_special_tokens": body.spaces_between_special_tokens,
        "use_beam_search": body.use_beam_search,
        "length_penalty": body.length_penalty,
        "early_stopping": body.early_stopping,
        "structured_outputs": constraint(body.response_format, body),
    }
    return with_defaults(values | body.model_dump(include=set(FROM_GENERATION_CONFIG), exclude_none=True), defaults)


def _wider(first: int | None, second: int | None) -> int | None:
    """The count of alternatives that covers both; -1 is the whole vocabulary."""
    counts = [count for count in (first, second) if count is not None]
    if not counts:
        return None
    return -1 if -1 in counts else max(counts)
