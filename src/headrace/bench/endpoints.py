"""The routes that can be measured: what is sent to each, and what its answer says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from headrace.bench.errors import BenchError
from headrace.bench.prompts import Message, Prompt
from headrace.client import ChatChunk, Completion, Usage, calls
from headrace.client.call import Request, json_body, reading
from headrace.client.results import ChatChunkChoice, Result


class Endpoint(StrEnum):
    COMPLETIONS = "completions"
    CHAT = "chat"
    EMBEDDINGS = "embeddings"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one event of a stream, or a whole answer, says.

    `has_token`: whether it stands for at least one token. `has_choice` alone may be the end of an answer, or a token
    without a text.
    """

    text: str
    has_choice: bool
    has_token: bool
    usage: Usage | None


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, and how many tokens its prompt has and its answer should have: None where nobody knows, as of a
    chat, to which the server adds its template.

    `read` makes a `Piece` of an event, or of the body of an answer that is not `streamed`.
    """

    request: Request
    prompt_tokens: int | None
    output_tokens: int | None
    streamed: bool
    read: Callable[[bytes], Piece]


@dataclass(frozen=True, slots=True, kw_only=True)
class Asking:
    """How prompts are put to a server. `extra`: fields that every body gets; a None takes one out."""

    endpoint: Endpoint
    model: str
    ignore_eos: bool
    extra: Mapping[str, Any]

    def ask(self, prompt: Prompt) -> Ask:
        """Raises `BenchError` if the endpoint cannot take such a prompt."""
        if self.endpoint is Endpoint.EMBEDDINGS:
            fields = {"model": self.model, "input": self._text_or_ids(prompt), **self.extra}
            request = Request(method="POST", path="/v1/embeddings", body=json_body(fields))
            return Ask(request, prompt.tokens, 0, streamed=False, read=_embeddings)
        options = {
            "model": self.model,
            "max_tokens": prompt.output_tokens,
            "ignore_eos": True if self.ignore_eos else None,
            "stream_options": {"include_usage": True},
            **self.extra,
        }
        answer = prompt.output_tokens if self.ignore_eos else None
        if self.endpoint is Endpoint.CHAT:
            chat = calls.chat_stream({"messages": self._messages(prompt), **options})
            return Ask(chat.request, None, answer, streamed=True, read=_chat_piece)
        call = calls.complete_stream({"prompt": self._text_or_ids(prompt), **options})
        return Ask(call.request, prompt.tokens, answer, streamed=True, read=_completion_piece)

    def _messages(self, prompt: Prompt) -> Sequence[Message]:
        content = prompt.content
        if isinstance(content, str):
            return [{"role": "user", "content": content}]
        if isinstance(content, list):
            raise BenchError(f"{self.endpoint} takes no token ids.")
        return content

    def _text_or_ids(self, prompt: Prompt) -> str | list[int]:
        content = prompt.content
        if isinstance(content, tuple):
            raise BenchError(f"{self.endpoint} takes texts or token ids, no messages; use the endpoint chat.")
        return content


class _Embeddings(Result, frozen=True):
    """The vectors themselves are of no interest here."""

    data: list[Result]
    usage: Usage | None = None


_read_completion = reading(Completion)
_read_chat_chunk = reading(ChatChunk)
_read_embeddings = reading(_Embeddings)


def _embeddings(body: bytes) -> Piece:
    return Piece("", has_choice=False, has_token=False, usage=_read_embeddings(body).usage)


def _completion_piece(event: bytes) -> Piece:
    """A token may have no text yet, if it ends inside a character; an end without text is none."""
    chunk = _read_completion(event)
    has_token = any(choice.text or choice.finish_reason is None for choice in chunk.choices)
    return Piece("".join(choice.text for choice in chunk.choices), bool(chunk.choices), has_token, chunk.usage)


def _chat_piece(event: bytes) -> Piece:
    chunk = _read_chat_chunk(event)
    texts = [_said(choice) for choice in chunk.choices]
    has_token = any(
        text or (choice.finish_reason is None and choice.delta.role is None)
        for text, choice in zip(texts, chunk.choices, strict=True)
    )
    return Piece("".join(texts), bool(chunk.choices), has_token, chunk.usage)


def _said(choice: ChatChunkChoice) -> str:
    """Whatever is new, spoken, thought or handed to a tool. An opening that only says whose turn it is has no text."""
    delta = choice.delta
    called = "".join((call.function.name or "") + call.function.arguments for call in delta.tool_calls or ())
    return (delta.reasoning or delta.reasoning_content or "") + (delta.content or "") + called
