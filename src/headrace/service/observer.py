"""What the service tells the metrics about its requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from headrace.core.request import FinishReason


@dataclass(frozen=True, slots=True, kw_only=True)
class FinishedRequest:
    """One request that has ended, however it ended. Durations in seconds, counts in tokens.

    `generation_tokens` and `finish_reasons` have one entry per choice. `max_tokens` is what the caller asked for, None
    if nothing. The durations up to `e2e` are None where the request never came that far: `queue` until it first ran,
    `prefill` from there to the first token, `decode` from the first token to the last, `inference` both together.
    """

    n: int
    max_tokens: int | None
    prompt_tokens: int
    cached_tokens: int
    generation_tokens: tuple[int, ...]
    finish_reasons: tuple[FinishReason, ...]
    queue: float | None
    prefill: float | None
    decode: float | None
    inference: float | None
    e2e: float

    @property
    def time_per_output_token(self) -> float | None:
        """Mean seconds between the output tokens of a choice; None with fewer than two tokens."""
        longest = max(self.generation_tokens, default=0)
        return self.decode / (longest - 1) if self.decode is not None and longest > 1 else None


@dataclass(frozen=True, slots=True, kw_only=True)
class PooledRequest:
    """One request to a model that pools, once it has ended, however it ended. Durations in seconds.

    `prompt_tokens` and `finish_reason` are those of each of its inputs, which end together. `queue` lasts until the
    first of them ran, `inference` from there to the end; None where none ran.
    """

    prompt_tokens: tuple[int, ...]
    finish_reason: FinishReason
    queue: float | None
    inference: float | None
    e2e: float


class RequestObserver(Protocol):
    """Listens to requests. Called on the event loop, so it must be quick and must not raise."""

    def first_token(self, seconds: float) -> None:
        """The first token of a request came this long after its arrival."""
        ...

    def inter_token(self, seconds: float, tokens: int) -> None:
        """`tokens` tokens of one choice came together, `seconds` after the ones before them."""
        ...

    def request_finished(self, request: FinishedRequest) -> None: ...

    def request_pooled(self, request: PooledRequest) -> None: ...

    def request_rejected(self, reason: str) -> None:
        """Admission turned a request away: `reason` is "max_num_queued_reqs" or "max_num_queued_tokens"."""
        ...
