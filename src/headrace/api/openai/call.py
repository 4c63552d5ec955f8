"""What a completion and a chat hand to the service in the same way."""

from __future__ import annotations

from headrace.api.call import check_streamable, checked_salt, priority_of
from headrace.api.openai.schema import GenerationBody
from headrace.core.sampling import SamplingParams
from headrace.service import Generation


def generation(
    body: GenerationBody,
    prompt: str | list[int],
    sampling: SamplingParams,
    *,
    request_id: str,
    add_special_tokens: bool,
    priority_header: str | None,
) -> Generation:
    """Raises `BadRequest` for a priority or a cache salt that makes no sense, and for what a stream cannot carry."""
    check_streamable(sampling, stream=body.stream, prompt_logprobs=body.prompt_logprobs)
    return Generation(
        prompt=prompt,
        sampling=sampling,
        request_id=request_id,
        add_special_tokens=add_special_tokens,
        truncate_prompt_tokens=body.truncate_prompt_tokens,
        truncation_side=body.truncation_side or "left",
        priority=priority_of(body.priority, priority_header),
        cache_salt=checked_salt(body.cache_salt),
    )
