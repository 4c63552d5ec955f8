"""Parameters of completions and chat that this server knows and does not implement."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.fields import INFRASTRUCTURE, Harmless, empty, never, one_of


def _plain_text(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


NOT_IMPLEMENTED: Mapping[str, Harmless] = {
    "response_format": _plain_text,
    "structured_outputs": never,
    "guided_json": never,
    "guided_regex": never,
    "guided_choice": never,
    "guided_grammar": never,
    "guided_decoding_backend": never,
    "guided_whitespace_pattern": never,
    "tools": never,
    "tool_choice": one_of("none"),
    "prompt_embeds": never,
    "suffix": never,
    **INFRASTRUCTURE,
    "stream_interval": one_of(1),
    "repetition_detection": never,
    "thinking_token_budget": one_of(-1),
    "include_reasoning": one_of(True),
    "media_io_kwargs": empty,
    "mm_processor_kwargs": empty,
}
"""By name, with the values that would change nothing."""
