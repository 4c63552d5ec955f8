"""The shapes in which callers of `LLM` may write their prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from headrace.core.errors import BadRequest
from headrace.service import Message

Prompt = str | Sequence[int] | Mapping[str, Any]
"""A text, token ids, or `{"prompt": text}` or `{"prompt_token_ids": ids}`, either with a `cache_salt` if wanted."""

_PROMPT_KEYS = {"prompt", "prompt_token_ids", "cache_salt"}


def listed_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    """A list of ids is one prompt."""
    single = isinstance(prompts, str | Mapping) or (len(prompts) > 0 and isinstance(prompts[0], int))
    return [cast(Prompt, prompts)] if single else list(cast(Sequence[Prompt], prompts))


def listed_conversations(messages: Sequence[Message] | Sequence[Sequence[Message]]) -> list[Sequence[Message]]:
    single = not messages or isinstance(messages[0], Mapping)
    return [cast(Sequence[Message], messages)] if single else list(cast(Sequence[Sequence[Message]], messages))


def listed_texts(texts: str | Sequence[str]) -> list[str]:
    return [texts] if isinstance(texts, str) else list(texts)


def prompt_content(prompt: Prompt) -> str | list[int]:
    """The text or the ids of a prompt. Raises `BadRequest` if it is neither."""
    content: object = prompt
    if isinstance(prompt, Mapping):
        if unknown := sorted(set(prompt) - _PROMPT_KEYS):
            raise BadRequest(f"A prompt with {unknown[0]!r} is not supported.", parameter="prompt")
        if ("prompt" in prompt) == ("prompt_token_ids" in prompt):
            raise BadRequest("A prompt needs one of 'prompt' and 'prompt_token_ids'.", parameter="prompt")
        content = prompt["prompt"] if "prompt" in prompt else prompt["prompt_token_ids"]
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(token, int) for token in content):
        return list(content)
    raise BadRequest(f"A prompt must be a text or a list of token ids, got {content!r}.", parameter="prompt")
