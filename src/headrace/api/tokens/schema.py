"""Bodies of requests; `api/record.py` says what all bodies have in common."""

from __future__ import annotations

from typing import Literal

from headrace.api.record import Body, Record, StreamOptions, TokenIds
from headrace.api.sampling import SamplingFields


class GenerateRequest(Body):
    """POST /inference/v1/generate."""

    token_ids: TokenIds
    sampling_params: SamplingFields
    """Without `max_tokens` the answer may fill the context."""
    stream: bool = False
    stream_options: StreamOptions | None = None
    output_mode: Literal["tokens", "text"] = "tokens"
    return_token_ids: bool = False
    """Show the prompt's ids too."""
    request_id: str | None = None
    priority: int = 0
    cache_salt: str | None = None


class AbortRequest(Record):
    """POST /inference/v1/abort_requests."""

    request_ids: list[str]
