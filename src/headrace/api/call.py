"""What requests of every family may say of how they are run: their priority, and whose prefix cache they share."""

from __future__ import annotations

from headrace.core.errors import BadRequest
from headrace.core.sampling import SamplingParams

PRIORITY_HEADER = "X-Vllm-Priority"

_INT64 = 1 << 63
_LONGEST_SALT = 128
_SALT_FORBIDDEN = frozenset("@/\\\0")


def priority_of(in_body: int, header: str | None) -> int:
    """The header wins. Raises `BadRequest` unless it is a 64-bit integer."""
    try:
        priority = in_body if header is None else int(header)
    except ValueError:
        raise BadRequest(f"{PRIORITY_HEADER} must be an integer.", parameter="priority", value=header) from None
    if not -_INT64 <= priority < _INT64:
        raise BadRequest("priority must be a 64-bit integer.", parameter="priority", value=priority)
    return priority


def check_streamable(sampling: SamplingParams, *, stream: bool, prompt_logprobs: int | None) -> None:
    """Raises `BadRequest` for what a stream cannot carry: prompt logprobs, and answers chosen only at the end.

    `prompt_logprobs` is what the body asks for; `sampling` may hold more, for an echo.
    """
    if not stream:
        return
    if prompt_logprobs:
        raise BadRequest(
            "prompt_logprobs are not available when stream is true.",
            parameter="prompt_logprobs",
            value=prompt_logprobs,
        )
    if sampling.use_beam_search:
        raise BadRequest("use_beam_search is not available when stream is true.", parameter="use_beam_search")
    check_streamed_best_of(sampling)


def check_streamed_best_of(sampling: SamplingParams) -> None:
    """Raises `BadRequest` if which answers are given shows only when all candidates are complete."""
    if sampling.num_candidates > sampling.n and not sampling.use_beam_search:
        raise BadRequest(
            f"best_of must be n={sampling.n} when stream is true, got {sampling.best_of}.",
            parameter="best_of",
            value=sampling.best_of,
        )


def checked_salt(salt: str | None) -> str | None:
    """`salt` itself. Raises `BadRequest` if it is too long or has a forbidden character."""
    if salt is not None and (not 1 <= len(salt) <= _LONGEST_SALT or _SALT_FORBIDDEN & set(salt)):
        raise BadRequest(
            f"cache_salt must have 1 to {_LONGEST_SALT} characters and none of '@', '/', '\\' and NUL.",
            parameter="cache_salt",
            value=salt,
        )
    return salt
