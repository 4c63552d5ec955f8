"""A request and how its answer is read, without I/O: what both clients have in common.

`calls.py` and `job_calls.py` make them, `sync_client.py` and `async_client.py` carry them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import httpx
import msgspec

from headrace.client.errors import ClientError, ConnectFailed, ProtocolError, TimedOut, TransportError
from headrace.client.refusals import refusal_of_body
from headrace.client.results import Answer
from headrace.client.streams import StreamReader

T = TypeVar("T")

REQUEST_ID = "x-request-id"
_SHOWN = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """`path` is below the base URL. `body`: JSON text, or None.

    `repeatable`: sending it twice does what sending it once does, so that it may be sent again when nobody knows what
    became of it. `hold`: seconds for which the server may be silent on purpose, beyond the time-out.
    """

    method: str
    path: str
    body: bytes | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    repeatable: bool = True
    hold: float = 0.0

    def for_httpx(self, http: httpx.Client | httpx.AsyncClient) -> httpx.Request:
        headers = dict(self.headers)
        if self.body is not None:
            headers["Content-Type"] = "application/json"
        timeout = http.timeout
        if self.hold and timeout.read is not None:
            timeout = httpx.Timeout(
                connect=timeout.connect, read=timeout.read + self.hold, write=timeout.write, pool=timeout.pool
            )
        return http.build_request(
            self.method, self.path, content=self.body, params=self.query, headers=headers, timeout=timeout
        )


@dataclass(frozen=True, slots=True)
class Call(Generic[T]):
    """`read` makes the result of a body; it raises `ProtocolError`."""

    request: Request
    read: Callable[[bytes], T]

    def result(self, response: httpx.Response) -> T:
        """Of a response whose body was read. Raises `StatusError` and `ProtocolError`."""
        check_status(response)
        return self.read(response.content)


@dataclass(frozen=True, slots=True)
class AnswerCall(Call[Answer]):
    """A call whose result also has what the headers say."""

    def result(self, response: httpx.Response) -> Answer:
        answer = Call.result(self, response)  # `super()` does not know its class in a dataclass with slots
        return msgspec.structs.replace(answer, request_id=response.headers.get(REQUEST_ID))


@dataclass(frozen=True, slots=True)
class StreamCall(Generic[T]):
    """`reader` makes a reader of the stream, given the request's id. `media_type`: what it must be, if known."""

    request: Request
    reader: Callable[[str | None], StreamReader[T]]
    media_type: str | None = None

    def reader_of(self, response: httpx.Response) -> StreamReader[T]:
        """For a response whose body is still to come. Raises `ProtocolError` if it is not a stream."""
        kind = response.headers.get("content-type", "")
        if self.media_type is not None and kind.partition(";")[0].strip().lower() != self.media_type:
            raise ProtocolError(f"The server answered with {kind or 'something unnamed'}, not with {self.media_type}.")
        return self.reader(response.headers.get(REQUEST_ID))


def check_status(response: httpx.Response) -> None:
    """Raises the `StatusError` of a response whose body was read."""
    if not response.is_success:
        raise refusal_of_body(response.status_code, response.content, response.headers)


@contextmanager
def transport_errors() -> Iterator[None]:
    """What httpx raises, in our words."""
    try:
        yield
    except httpx.InvalidURL as error:
        raise ClientError(f"The URL makes no sense: {error}.") from error
    except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol) as error:
        raise ConnectFailed(f"No connection could be made: {_said(error)}.") from error
    except httpx.TimeoutException as error:
        raise TimedOut(f"The server was silent for too long ({_said(error)}).") from error
    except httpx.DecodingError as error:
        raise ProtocolError(f"The answer cannot be decompressed: {_said(error)}.") from error
    except httpx.RequestError as error:
        raise TransportError(f"The connection broke: {_said(error)}.") from error


def _said(error: Exception) -> str:
    return str(error).rstrip(".") or type(error).__name__


def json_body(fields: Mapping[str, Any]) -> bytes:
    """JSON text without what is None. Raises `TypeError` and `ValueError` for what JSON cannot express (a NaN)."""
    given = {name: value for name, value in fields.items() if value is not None}
    return json.dumps(given, allow_nan=False, default=_plain, separators=(",", ":")).encode()


def _plain(value: Any) -> Any:
    """What `json` does not know but a caller may well hand over."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"{type(value).__name__} cannot be sent as JSON.")


def reading(kind: type[T]) -> Callable[[bytes], T]:
    """A function that reads a body as `kind`. It raises `ProtocolError`."""
    decode = msgspec.json.Decoder(kind).decode

    def read(body: bytes) -> T:
        try:
            return decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            shown = body[:_SHOWN].decode(errors="replace")
            raise ProtocolError(f"The answer is not what was promised ({error}): {shown!r}") from error

    return read
