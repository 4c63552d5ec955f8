"""What a completion and a chat hand to the service in the same way."""

from __future__ import annotations

from headrace.api.openai.schema import GenerationBody
from headrace.core.errors import BadRequest
from headrace.core.sampling import SamplingParams
from headrace.service import Generation

PRIORITY_HEADER = "X-Vllm-Priority"

_INT64 = 1 << 63
_LONGEST_SALT = 128
_SALT_FORBIDDEN = frozenset("@/\\\0")


def generation(
    body: GenerationBody,
    prompt: str | list[int],
    sampling: SamplingParams,
    *,
    request_id: str,
    add_special_tokens: bool,
    priority_header: str | None,
) -> Generation:
    """Raises `BadRequest` for a priority or a cache salt that makes no sense."""
    return Generation(
        prompt=prompt,
        sampling=sampling,
        request_id=request_id,
        add_special_tokens=add_special_tokens,
        truncate_prompt_tokens=body.truncate_prompt_tokens,
        truncation_side=body.truncation_side or "left",
        priority=_priority(body.priority, priority_header),
        cache_salt=_cache_salt(body.cache_salt),
    )


def check_streamable(body: GenerationBody) -> None:
    """Raises `BadRequest` for prompt logprobs that a stream cannot carry."""
    if body.stream and body.prompt_logprobs:
        raise BadRequest(
            "prompt_logprobs are not available when stream is true.",
            parameter="prompt_logprobs",
            value=body.prompt_logprobs,
        )


def _priority(in_body: int, header: str | None) -> int:
    """The header wins."""
    try:
        priority = in_body if header is None else int(header)
    except ValueError:
        raise BadRequest(f"{PRIORITY_HEADER} must be an integer.", parameter="priority", value=header) from None
    if not -_INT64 <= priority < _INT64:
        raise BadRequest("priority must be a 64-bit integer.", parameter="priority", value=priority)
    return priority


def _cache_salt(salt: str | None) -> str | None:
    if salt is not None and (not 1 <= len(salt) <= _LONGEST_SALT or _SALT_FORBIDDEN & set(salt)):
        raise BadRequest(
            f"cache_salt must have 1 to {_LONGEST_SALT} characters and none of '@', '/', '\\' and NUL.",
            parameter="cache_salt",
            value=salt,
        )
    return salt
