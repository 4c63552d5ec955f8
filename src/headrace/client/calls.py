"""The routes that generate, and those around them: each as a `Call` or a `StreamCall`."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import Struct

from headrace.client.call import AnswerCall, Call, Request, StreamCall, json_body, reading
from headrace.client.parameters import Message
from headrace.client.results import (
    Answer,
    ChatChunk,
    ChatCompletion,
    Classification,
    Completion,
    Embeddings,
    Model,
    Ranking,
    Result,
    Scores,
    Tokenized,
    TokensCompletion,
)
from headrace.client.streams import EventReader, LineReader, StreamReader
from headrace.client.vectors import read_embeddings

T = TypeVar("T")

Prompt = str | Sequence[str] | Sequence[int] | Sequence[Sequence[int]]

Inputs = Prompt | Sequence[Message]
"""What pools: texts, token ids, or one conversation."""

Texts = str | Sequence[str]

_EVENTS = "text/event-stream"


class _Texts(Result, frozen=True):
    text: list[str]


class _Detokenized(Result, frozen=True):
    prompt: str


class _ModelList(Result, frozen=True):
    data: list[Model]


_read_completion = reading(Completion)
_read_chat = reading(ChatCompletion)
_read_chat_chunk = reading(ChatChunk)
_read_tokens = reading(TokensCompletion)
_read_texts = reading(_Texts)
_read_tokenized = reading(Tokenized)
_read_detokenized = reading(_Detokenized)
_read_models = reading(_ModelList)
_read_classes = reading(Classification)
_read_scores = reading(Scores)
_read_ranking = reading(Ranking)
_read_anything = reading(Any)


def complete(fields: Mapping[str, Any]) -> Call[Completion]:
    return Call(_post("/v1/completions", fields), _read_completion)


def complete_stream(fields: Mapping[str, Any]) -> StreamCall[Completion]:
    return _event_stream("/v1/completions", fields, _read_completion)


def chat(fields: Mapping[str, Any]) -> Call[ChatCompletion]:
    return Call(_post("/v1/chat/completions", fields), _read_chat)


def chat_stream(fields: Mapping[str, Any]) -> StreamCall[ChatChunk]:
    return _event_stream("/v1/chat/completions", fields, _read_chat_chunk)


def tokens(fields: Mapping[str, Any]) -> Call[TokensCompletion]:
    return Call(_post("/inference/v1/generate", fields), _read_tokens)


def tokens_stream(fields: Mapping[str, Any]) -> StreamCall[TokensCompletion]:
    return _event_stream("/inference/v1/generate", fields, _read_tokens)


def legacy_generate(fields: Mapping[str, Any]) -> Call[list[str]]:
    return Call(_post("/generate", fields), lambda body: _read_texts(body).text)


def legacy_stream(fields: Mapping[str, Any]) -> StreamCall[list[str]]:
    def reader(request_id: str | None) -> StreamReader[list[str]]:
        return LineReader(lambda line: _read_texts(line).text, request_id)

    return StreamCall(_post("/generate", {**fields, "stream": True}), reader)


def embed(given: Inputs, fields: Mapping[str, Any]) -> Call[Embeddings]:
    """As base64 unless `fields` say otherwise: a quarter of the bytes, and exact."""
    return Call(_post("/v1/embeddings", {"encoding_format": "base64", **_inputs(given), **fields}), read_embeddings)


def classify(given: Inputs, fields: Mapping[str, Any]) -> Call[Classification]:
    return Call(_post("/classify", {**_inputs(given), **fields}), _read_classes)


def score(fields: Mapping[str, Any]) -> Call[Scores]:
    return Call(_post("/v1/score", fields), _read_scores)


def rerank(fields: Mapping[str, Any]) -> Call[Ranking]:
    return Call(_post("/v1/rerank", fields), _read_ranking)


def post(path: str, body: Mapping[str, Any] | bytes) -> Call[Answer]:
    request = Request(method="POST", path=path, body=body if isinstance(body, bytes) else json_body(body))
    return AnswerCall(request, lambda text: Answer(body=_read_anything(text)))


def tokenize(given: str | Sequence[Message], fields: Mapping[str, Any]) -> Call[Tokenized]:
    subject = {"prompt": given} if isinstance(given, str) else {"messages": given}
    return Call(_post("/tokenize", {**subject, **fields}), _read_tokenized)


def detokenize(token_ids: Sequence[int], fields: Mapping[str, Any]) -> Call[str]:
    return Call(_post("/detokenize", {"tokens": token_ids, **fields}), lambda body: _read_detokenized(body).prompt)


def models() -> Call[list[Model]]:
    return Call(Request(method="GET", path="/v1/models"), lambda body: _read_models(body).data)


def fields_of(parameters: Mapping[str, Any], model: str | None, **own: Any) -> dict[str, Any]:
    """The fields of a body: those of the call itself, its parameters, and what `extra_body` adds or replaces.

    `model` is for parameters that name none.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    extra = given.pop("extra_body", {})
    return {"model": model, **own, **given, **extra}


def _inputs(given: Inputs) -> dict[str, Any]:
    conversation = not isinstance(given, str) and bool(given) and isinstance(given[0], Mapping | Struct)
    return {"messages" if conversation else "input": given}


def _post(path: str, fields: Mapping[str, Any]) -> Request:
    """Generating is repeatable: it leaves nothing behind on a server."""
    return Request(method="POST", path=path, body=json_body(fields))


def _event_stream(path: str, fields: Mapping[str, Any], read: Callable[[bytes], T]) -> StreamCall[T]:
    request = _post(path, {**fields, "stream": True})
    return StreamCall(request, lambda request_id: EventReader(read, request_id), _EVENTS)
