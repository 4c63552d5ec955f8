"""The knobs of the Runpod-compatible routes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from headrace.config.rules import Must, Size, Variable, at_least, check_fields

OPERATIONS = ("run", "runsync", "status", "stream", "cancel", "purge-queue", "openai")
"""What can be limited; `status` is /status-sync as well."""


def _is_limit(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 1


_LIMITS = Must(
    f"integers from 1 on, by operation ({', '.join(OPERATIONS)})",
    lambda value: value.keys() <= set(OPERATIONS) and all(map(_is_limit, value.values())),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunpodConfig:
    """The Runpod-compatible job routes."""

    job_max_tokens: Annotated[int, at_least(1)] = 16
    """Tokens of a job in the native format that does not say."""
    job_batch_size: Annotated[int, at_least(1), Variable("DEFAULT_BATCH_SIZE")] = 50
    """Most tokens in a streamed chunk of a job that does not say."""
    job_min_batch_size: Annotated[int, at_least(1), Variable("DEFAULT_MIN_BATCH_SIZE")] = 1
    """Tokens in the first streamed chunk of a job that does not say."""
    job_batch_size_growth_factor: Annotated[float, at_least(0), Variable("DEFAULT_BATCH_SIZE_GROWTH_FACTOR")] = 3.0
    """How much larger each streamed chunk is than the one before; 1 or less: all have the largest size."""
    job_stream_default: Literal["lines", "poll"] = "lines"
    """What a GET of /stream without telling headers gets: a line a chunk until the job ends, or one reply."""
    job_stream_ends_cancelled: bool = False
    """Poll replies of /stream say CANCELLED once and then FAILED: stream() of the Python SDK ends at nothing else."""
    max_job_body_bytes: Annotated[int, Size(), at_least(1)] = 10_000_000
    """Largest body of /run; 413 beyond. /runsync takes twice as much."""
    job_rate_limits: Annotated[dict[str, Any], _LIMITS] = field(default_factory=dict)
    """JSON object: requests in 10 seconds by operation (run, runsync, status, stream, cancel, purge-queue, openai)."""
    job_concurrency_limits: Annotated[dict[str, Any], _LIMITS] = field(default_factory=dict)
    """JSON object: requests at a time by operation, named as in --job-rate-limits."""

    def __post_init__(self) -> None:
        check_fields(self)
