"""The lines of a batch: what is asked, and what came of it.

    {"custom_id": "a", "method": "POST", "url": "/v1/completions", "body": {"prompt": "Once"}}

    {"id": "batch_req_1", "custom_id": "a", "error": null,
     "response": {"status_code": 200, "request_id": "…", "body": {…}}}

`id` says which line of the input it is. A refused request has both the server's answer and an `error`, as there are
readers that look at either; one that got no answer has an `error` only.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec
from msgspec import Raw, Struct

ROUTES = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/score",
    "/score",
    "/v1/rerank",
    "/v2/rerank",
    "/rerank",
    "/classify",
    "/pooling",
)
"""What a line's `url` may be: routes that take JSON and answer with JSON."""

LONGEST_LINE = 64 << 20
"""Bytes. A line beyond that would only fill memory."""

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"


class _Identity(Struct):
    custom_id: str


class _Request(Struct):
    custom_id: str
    url: str
    body: Raw
    method: str = "POST"


class _Options(Struct):
    """What of a body matters here."""

    stream: Any = None


@dataclass(frozen=True, slots=True)
class InputLine:
    """`number` counts from 1. `text` None: it is longer than `LONGEST_LINE`. `size` is in bytes."""

    number: int
    text: bytes | None
    size: int

    @property
    def id(self) -> str:
        return f"batch_req_{self.number}"


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """A line that can be sent. `body` is JSON text."""

    line: InputLine
    custom_id: str
    path: str
    body: bytes


class LineRefused(Exception):
    """A line that cannot be sent. `custom_id` None: it has none that could be read."""

    def __init__(self, code: str, message: str, custom_id: str | None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.custom_id = custom_id


class _Response(Struct):
    status_code: int
    request_id: str | None
    body: Any


class _Error(Struct):
    code: str
    message: str


class _Outcome(Struct):
    id: str
    custom_id: str | None
    response: _Response | None
    error: _Error | None


_decode_request = msgspec.json.Decoder(_Request).decode
_decode_identity = msgspec.json.Decoder(_Identity).decode
_decode_options = msgspec.json.Decoder(_Options).decode
_encode = msgspec.json.Encoder().encode


def read_lines(source: BinaryIO) -> Iterator[InputLine]:
    """The lines that hold something. No more than one is in memory."""
    number = 0
    while text := source.readline(LONGEST_LINE + 1):
        number += 1
        size = len(text)
        if size > LONGEST_LINE and not text.endswith(b"\n"):
            while (rest := source.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                size += len(rest)
            yield InputLine(number, None, size + len(rest))
            continue
        if number == 1:
            text = text.removeprefix(_BYTE_ORDER_MARK)
        if text.strip():
            yield InputLine(number, text, size)


def read_request(line: InputLine) -> BatchRequest:
    """Raises `LineRefused`, which says what is wrong with the line."""
    if line.text is None:
        raise LineRefused("invalid_line", f"Line {line.number} has more than {LONGEST_LINE} bytes.", None)
    try:
        request = _decode_request(line.text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message = f"Line {line.number} is not a request of a batch: {error}."
        raise LineRefused("invalid_line", message, _custom_id(line.text)) from None
    return BatchRequest(line, request.custom_id, _path(line, request), _body(line, request))


def _path(line: InputLine, request: _Request) -> str:
    if request.method.upper() != "POST":
        message = f"Line {line.number}: method must be POST, got {request.method!r}."
        raise LineRefused("invalid_method", message, request.custom_id)
    if request.url not in ROUTES:
        message = f"Line {line.number}: url must be one of {', '.join(ROUTES)}, got {request.url!r}."
        raise LineRefused("invalid_url", message, request.custom_id)
    return request.url


def _body(line: InputLine, request: _Request) -> bytes:
    body = bytes(request.body)
    try:
        options = _decode_options(body)
    except msgspec.DecodeError as error:
        message = f"Line {line.number}: body must be a JSON object ({error})."
        raise LineRefused("invalid_body", message, request.custom_id) from None
    if options.stream:
        message = f"Line {line.number}: stream must be left out: an answer is one line."
        raise LineRefused("invalid_body", message, request.custom_id)
    return body


def _custom_id(text: bytes) -> str | None:
    try:
        return _decode_identity(text).custom_id
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def answered(request: BatchRequest, body: Any, request_id: str | None) -> bytes:
    """The output line of a request that was answered with 200."""
    if request_id is None and isinstance(body, dict):
        request_id = body.get("id")
    return _line(_Outcome(request.line.id, request.custom_id, _Response(200, request_id, body), None))


def refused(request: BatchRequest, status: int, body: Any, request_id: str | None, message: str) -> bytes:
    """The output line of a request that the server answered with an error."""
    response = _Response(status, request_id, body)
    return _line(_Outcome(request.line.id, request.custom_id, response, _Error(f"http_{status}", message)))


def unanswered(line: InputLine, custom_id: str | None, code: str, message: str) -> bytes:
    """The output line of what no server has answered."""
    return _line(_Outcome(line.id, custom_id, None, _Error(code, message)))


def _line(outcome: _Outcome) -> bytes:
    return _encode(outcome) + b"\n"
