"""What completions and chat answers have in common: who they are, and what they say of tokens used."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from msgspec import UNSET, UnsetType

from headrace.api.openai.schema import GenerationBody
from headrace.api.openai.wire import TokenDetails, Usage
from headrace.config.sections import ApiConfig
from headrace.core.errors import BadRequest
from headrace.core.request import FinishReason
from headrace.service import PositionLogprobs


class PromptSource(Protocol):
    """The part of a `GenerationStream` that speaks of its prompt. Logprobs are there with the first delta."""

    @property
    def prompt_ids(self) -> list[int]: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def prompt_logprobs(self) -> list[PositionLogprobs | None] | None: ...


@dataclass(frozen=True, slots=True)
class PromptView:
    """One prompt as an answer shows it. `text` is for `echo`; `first_token` is the text of the first id alone."""

    source: PromptSource
    text: str = ""
    first_token: str = ""

    @property
    def ids(self) -> list[int]:
        return self.source.prompt_ids

    @property
    def logprobs(self) -> list[PositionLogprobs | None] | None:
        """One entry a prompt token, None for the first; None where none were asked for."""
        return self.source.prompt_logprobs


@dataclass(frozen=True, slots=True)
class UsagePolicy:
    """Which usage a stream shows: at the end, on every chunk; and whether cached tokens are told."""

    at_end: bool
    on_chunks: bool
    details: bool


@dataclass(frozen=True, slots=True)
class Head:
    """The fields that every chunk of an answer repeats. `created` in Unix seconds."""

    id: str
    created: int
    model: str
    fingerprint: str

    def terminal_fingerprint(self, reason: FinishReason | None, usage: UsagePolicy) -> str | UnsetType:
        """A choice's last chunk carries the fingerprint, unless a usage chunk will."""
        return UNSET if reason is None or usage.at_end else self.fingerprint


def usage_policy(body: GenerationBody, config: ApiConfig) -> UsagePolicy:
    """Raises `BadRequest` for stream options without a stream."""
    options = body.stream_options
    if options is not None and not body.stream:
        raise BadRequest("Stream options can only be defined when `stream=True`.", parameter="stream_options")
    forced = config.enable_force_include_usage
    at_end = forced or (options is not None and options.include_usage)
    on_chunks = forced or (options is not None and options.include_usage and options.continuous_usage_stats)
    return UsagePolicy(at_end, on_chunks, config.enable_prompt_tokens_details)


def whole_usage(prompts: Sequence[PromptView], completion_tokens: int, *, details: bool) -> Usage:
    """Usage of a body, nulls shown. Each prompt counts once, whatever its number of choices."""
    prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
    return Usage(
        prompt_tokens=prompt_tokens,
        completion_tokens=completion_tokens,
        total_tokens=prompt_tokens + completion_tokens,
        prompt_tokens_details=TokenDetails(cached_tokens=_cached_tokens(prompts)) if details else None,
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


def final_usage(prompts: Sequence[PromptView], completion_tokens: int, *, details: bool) -> Usage:
    """Usage of the chunk that ends a stream; nulls left out."""
    usage = stream_usage(sum(len(prompt.ids) for prompt in prompts), completion_tokens)
    if details:
        usage.prompt_tokens_details = TokenDetails(
            cached_tokens=_cached_tokens(prompts), created_cache_tokens=UNSET, multimodal_tokens=UNSET
        )
    return usage


def _cached_tokens(prompts: Sequence[PromptView]) -> int:
    return sum(prompt.source.cached_tokens for prompt in prompts)
