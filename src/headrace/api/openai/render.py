"""POST …/render: the token request that a completion or a chat stands for, for /inference/v1/generate to run."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from headrace.api.openai.schema import GenerationBody
from headrace.api.wire import Wire
from headrace.service import Generation
from headrace.service.prompts import PreparedPrompt


class TokenRequest(Wire, kw_only=True):
    """`sampling_params` holds every field of `SamplingParams`, and a `max_tokens` that the context has room for."""

    request_id: str
    model: str
    token_ids: list[int]
    sampling_params: dict[str, Any]
    stream: bool
    stream_options: dict[str, bool] | None
    return_token_ids: bool
    cache_salt: str | None
    priority: int
    features: None = None
    kv_transfer_params: None = None


def token_request(body: GenerationBody, call: Generation, prepared: PreparedPrompt, *, model: str) -> TokenRequest:
    """`call` is what `body` asks of the service, and `prepared` what the engine would get of it."""
    options = body.stream_options
    return TokenRequest(
        request_id=call.request_id,
        model=model,
        token_ids=prepared.prompt_ids,
        sampling_params=asdict(call.sampling) | {"max_tokens": prepared.sampling.max_tokens},
        stream=body.stream,
        stream_options=None if options is None else options.model_dump(include=set(type(options).model_fields)),
        return_token_ids=body.return_token_ids,
        cache_salt=call.cache_salt,
        priority=call.priority,
    )
