"""Bodies of requests; `api/record.py` says what all bodies have in common."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import PlainValidator, WithJsonSchema

from headrace.api.record import TOKEN_IDS_SCHEMA, Body, are_token_ids

Side = Literal["left", "right"]
EncodingFormat = Literal["float", "base64", "bytes", "bytes_only"]
EmbedDtype = Literal["float32", "float16", "bfloat16", "fp8_e4m3", "fp8_e5m2"]
Endianness = Literal["native", "little", "big"]
Message = dict[str, Any]

_TEXTS_SCHEMA = {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]}
_CONVERSATION_SCHEMA = {"type": "array", "items": {"type": "object"}}


def _texts_or_ids(value: Any) -> str | list[str] | list[int] | list[list[int]]:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if set(map(type, value)) <= {str} or are_token_ids(value):
            return value
        if all(isinstance(item, list) and are_token_ids(item) for item in value):
            return value
    raise ValueError("must be a string, a list of strings, a list of token ids or a list of lists of token ids")


def _one_or_many_conversations(value: Any) -> list[Message] | list[list[Message]]:
    if _is_conversation(value) or (isinstance(value, list) and all(map(_is_conversation, value))):
        return value
    raise ValueError("must be a conversation, which is a list of messages, or a list of conversations")


def _anything_to_embed(value: Any) -> Any:
    try:
        return _one_or_many_conversations(value) if _holds_messages(value) else _texts_or_ids(value)
    except ValueError as problem:
        raise ValueError(f"{problem}; or a conversation or a list of conversations") from None


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(message, dict) for message in value)


def _holds_messages(value: Any) -> bool:
    first = value[0] if isinstance(value, list) and value else None
    return isinstance(first, dict) or (isinstance(first, list) and bool(first) and isinstance(first[0], dict))


TextsOrIds = Annotated[
    str | list[str] | list[int] | list[list[int]],
    PlainValidator(_texts_or_ids),
    WithJsonSchema(
        {"anyOf": [*_TEXTS_SCHEMA["anyOf"], TOKEN_IDS_SCHEMA, {"type": "array", "items": TOKEN_IDS_SCHEMA}]}
    ),
]
Conversations = Annotated[
    list[Message] | list[list[Message]],
    PlainValidator(_one_or_many_conversations),
    WithJsonSchema({"anyOf": [_CONVERSATION_SCHEMA, {"type": "array", "items": _CONVERSATION_SCHEMA}]}),
]
Embeddable = Annotated[
    Any,
    PlainValidator(_anything_to_embed),
    WithJsonSchema(
        {
            "anyOf": [
                *_TEXTS_SCHEMA["anyOf"],
                TOKEN_IDS_SCHEMA,
                {"type": "array", "items": TOKEN_IDS_SCHEMA},
                _CONVERSATION_SCHEMA,
                {"type": "array", "items": _CONVERSATION_SCHEMA},
            ]
        }
    ),
]
Element = Annotated[Any, WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]})]
"""A text, `{"text": …}`, or `{"content": …}` with a text or a list of parts; `pairs.py` reads it."""
Elements = Annotated[
    Any,
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string"},
                {"type": "object"},
                {"type": "array", "items": {"anyOf": [{"type": "string"}, {"type": "object"}]}},
            ]
        }
    ),
]


class PooledBody(Body):
    """What all bodies of this family have in common."""

    truncate_prompt_tokens: int | None = None
    """Keep so many tokens; -1: as many as the model reads, which is what happens without it too."""
    truncation_side: Side = "right"
    """The end that is cut."""
    padding: Literal["max_length", "do_not_pad"] | None = None
    use_activation: bool | None = None
    """Normalise vectors, or put scores through the model's activation. Default: what the model's files say."""
    normalize: bool | None = None
    """Older name of `use_activation`, as are the next two."""
    softmax: bool | None = None
    activation: bool | None = None
    priority: int = 0
    request_id: str | None = None
    cache_salt: str | None = None
    user: str | None = None
    """Accepted for the caller's own book-keeping; it changes nothing."""


class InputBody(PooledBody):
    """A body with inputs, each to be pooled by itself: `input`, or `messages`."""

    input: TextsOrIds | None = None
    messages: Conversations | None = None
    add_special_tokens: bool | None = None
    """Default: true for texts, false for messages. Ids are taken as they are."""
    add_generation_prompt: bool = False
    continue_final_message: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class VectorBody(InputBody):
    """A body that says how vectors are to be written."""

    encoding_format: EncodingFormat = "float"
    embed_dtype: EmbedDtype = "float32"
    """Of base64 and bytes."""
    endianness: Endianness = "native"
    """Of base64 and bytes; native is little."""


class EmbeddingRequest(VectorBody):
    """POST /v1/embeddings."""

    input: Embeddable | None = None
    dimensions: int | None = None
    """Keep so many values of each vector; for models that were trained for it."""


class PoolingRequest(VectorBody):
    """POST /pooling."""

    messages: list[Message] | None = None
    task: str | None = None
    """embed, classify, token_embed or token_classify. Default: the first of these that the model can do."""


class ClassifyRequest(InputBody):
    """POST /classify."""

    messages: list[Message] | None = None


class PairBody(PooledBody):
    """What bodies with pairs of texts have in common."""

    add_special_tokens: bool = True
    max_tokens_per_query: int = 0
    """Cut longer queries; 0: only where the model cannot read more."""
    max_tokens_per_doc: int = 0
    instruction: str | None = None
    """A variable of the chat template that makes a prompt of a pair."""
    chat_template_kwargs: dict[str, Any] | None = None


class ScoreRequest(PairBody):
    """POST /score and /v1/score: one of the pairs, in any of these spellings."""

    text_1: Elements | None = None
    text_2: Elements | None = None
    queries: Elements | None = None
    documents: Elements | None = None
    items: Elements | None = None
    data_1: Elements | None = None
    data_2: Elements | None = None


class RerankRequest(PairBody):
    """POST /rerank, /v1/rerank and /v2/rerank."""

    query: Element
    documents: list[Element]
    top_n: int = 0
    """Best documents to answer with; 0: all."""
    return_documents: bool | None = None
    """Documents are always returned."""
    rank_fields: list[str] | None = None
    """Documents are texts: there is nothing to choose from."""
