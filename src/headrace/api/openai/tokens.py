"""POST /tokenize."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.api.openai.schema import TokenizeRequest
from headrace.api.openai.template import conversation
from headrace.api.openai.wire import Tokenized
from headrace.config.sections import ApiConfig
from headrace.core.errors import BadRequest

if TYPE_CHECKING:
    from headrace.service.generation import Generator
    from headrace.service.pooler import Pooler


async def tokenize(body: TokenizeRequest, model: Generator | Pooler, config: ApiConfig) -> Tokenized:
    """Special tokens are added to a prompt unless refused, to messages only if asked for: their template has them."""
    if (body.prompt is None) == (body.messages is None):
        raise BadRequest("Exactly one of prompt and messages must be given.", parameter="prompt")
    if body.prompt is None:
        text = await model.render(conversation(body, config, tools=body.tools))
        add_special_tokens = bool(body.add_special_tokens)
    else:
        text = body.prompt
        add_special_tokens = body.add_special_tokens is not False
    ids = await model.tokenize(text, add_special_tokens=add_special_tokens)
    return Tokenized(
        count=len(ids),
        max_model_len=model.max_model_len,
        tokens=ids,
        token_strs=[model.tokenizer.piece(token) or "" for token in ids] if body.return_token_strs else None,
    )
