"""POST /tokenize."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.openai.schema import TokenizeRequest
from headrace.api.openai.template import conversation
from headrace.api.openai.wire import Tokenized
from headrace.core.errors import BadRequest
from headrace.service.generation import Generator


async def tokenize(body: TokenizeRequest, generator: Generator, default_kwargs: Mapping[str, Any]) -> Tokenized:
    """Special tokens are added to a prompt unless refused, to messages only if asked for: their template has them."""
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("Exactly one of prompt and messages must be given.", parameter="prompt")
    if body.prompt is None:
        text = await generator.render(conversation(body, default_kwargs))
        add_special_tokens = bool(body.add_special_tokens)
    else:
        text = body.prompt
        add_special_tokens = body.add_special_tokens is not False
    ids = await generator.tokenize(text, add_special_tokens=add_special_tokens)
    return Tokenized(
        count=len(ids),
        max_model_len=generator.max_model_len,
        tokens=ids,
        token_strs=[generator.tokenizer.piece(token) or "" for token in ids] if body.return_token_strs else None,
    )
