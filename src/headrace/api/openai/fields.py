"""Parameters of completions and chat that this server knows and does not implement."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.fields import INFRASTRUCTURE, Harmless, empty, never, one_of

NOT_IMPLEMENTED: Mapping[str, Harmless] = {
    "prompt_embeds": never,
    "suffix": never,
    **INFRASTRUCTURE,
    "stream_interval": one_of(1),
    "repetition_detection": never,
    "thinking_token_budget": one_of(-1),
    "media_io_kwargs": empty,
    "mm_processor_kwargs": empty,
}
"""By name, with the values that would change nothing."""
