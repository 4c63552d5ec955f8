"""What an answer says of the tokens it took."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import UNSET, UnsetType

from headrace.api.record import StreamOptions
from headrace.api.wire import Wire
from headrace.config.sections import ApiConfig
from headrace.core.errors import BadRequest
from headrace.service import PositionLogprobs


class TokenDetails(Wire, kw_only=True):
    cached_tokens: int
    created_cache_tokens: int | UnsetType | None = None
    multimodal_tokens: int | UnsetType | None = None


class CompletionDetails(Wire, kw_only=True):
    reasoning_tokens: int


class Usage(Wire, kw_only=True):
    prompt_tokens: int
    total_tokens: int
    completion_tokens: int
    prompt_tokens_details: TokenDetails | UnsetType | None = None
    completion_tokens_details: CompletionDetails | UnsetType | None = None


class PromptSource(Protocol):
    """The part of a `GenerationStream` that speaks of its prompt. Logprobs are there with the first delta."""

    @property
    def prompt_ids(self) -> list[int]: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def prompt_logprobs(self) -> list[PositionLogprobs | None] | None: ...


@dataclass(frozen=True, slots=True)
class UsagePolicy:
    """Which usage a stream shows: at the end, on every chunk; and whether cached tokens are told."""

    at_end: bool
    on_chunks: bool
    details: bool


def usage_policy(options: StreamOptions | None, *, stream: bool, config: ApiConfig) -> UsagePolicy:
    """Raises `BadRequest` for stream options without a stream."""
    if options is not None and not stream:
        raise BadRequest("Stream options can only be defined when `stream=True`.", parameter="stream_options")
    forced = config.enable_force_include_usage
    at_end = forced or (options is not None and options.include_usage)
    on_chunks = forced or (options is not None and options.include_usage and options.continuous_usage_stats)
    return UsagePolicy(at_end, on_chunks, config.enable_prompt_tokens_details)


def whole_usage(
    prompts: Sequence[PromptSource], completion_tokens: int, *, details: bool, reasoning_tokens: int | None = None
) -> Usage:
    """Usage of a body, nulls shown. Each prompt counts once, whatever its number of choices. `reasoning_tokens` is how
    many of the `completion_tokens` were thoughts, None if that is not told.
    """
    prompt_tokens = sum(len(prompt.prompt_ids) for prompt in prompts)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=TokenDetails(cached_tokens=_cached_tokens(prompts)) if details else None,
        completion_tokens_details=None
        if reasoning_tokens is None
        else CompletionDetails(reasoning_tokens=reasoning_tokens),
    )


def stream_usage(prompt_tokens: int, completion_tokens: int) -> Usage:
    """Usage so far, of all choices together; nulls left out."""
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=UNSET,
        completion_tokens_details=UNSET,
    )


def final_usage(
    prompts: Sequence[PromptSource], completion_tokens: int, *, details: bool, reasoning_tokens: int | None = None
) -> Usage:
    """Usage of the chunk that ends a stream, as `whole_usage`; nulls left out."""
    usage = stream_usage(sum(len(prompt.prompt_ids) for prompt in prompts), completion_tokens)
    if details:
        usage.prompt_tokens_details = TokenDetails(
            cached_tokens=_cached_tokens(prompts), created_cache_tokens=UNSET, multimodal_tokens=UNSET
        )
    if reasoning_tokens is not None:
        usage.completion_tokens_details = CompletionDetails(reasoning_tokens=reasoning_tokens)
    return usage


def _cached_tokens(prompts: Sequence[PromptSource]) -> int:
    return sum(prompt.cached_tokens for prompt in prompts)
