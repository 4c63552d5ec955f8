"""Parameters of a token request, and of its `sampling_params`, that this server knows and does not implement."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.fields import INFRASTRUCTURE, Harmless, empty, never, one_of

NOT_IMPLEMENTED: Mapping[str, Harmless] = {
    **INFRASTRUCTURE,
    "features": empty,
    "content_parts": empty,
    "reasoning_ended": one_of(False),
    "reasoning_parser_kwargs": empty,
    "guided_decoding": never,
    "extra_args": empty,
    "logits_processors": empty,
    "repetition_detection": never,
    "thinking_token_budget": one_of(-1),
}
"""By name, with the values that would change nothing."""
