"""Readers of streams, without I/O: bytes are fed in as they come, items are taken out.

    reader.feed(piece)              # b"" is the end
    while (item := reader.take()) is not None:
        …

What came before something malformed is taken first, then `take` raises.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

import msgspec

from headrace.client.errors import ProtocolError
from headrace.client.refusals import refusal_in_stream

T = TypeVar("T")

LONGEST_LINE = 64 << 20
"""Bytes. A line beyond that is no chunk of any server, and would only fill memory."""

_SHOWN = 200


class StreamReader(Generic[T]):
    """Splits bytes into lines and makes items of them; subclasses say how. `read` raises `ProtocolError`."""

    def __init__(self, read: Callable[[bytes], T], request_id: str | None = None) -> None:
        self._read = read
        self._request_id = request_id
        self._lines: deque[bytes] = deque()
        self._open_line: list[bytes] = []
        self._open_bytes = 0
        self._fed_all = False

    @property
    def at_end(self) -> bool:
        """Whether the end was fed and everything was taken."""
        return self._fed_all and not self._lines

    def feed(self, piece: bytes) -> None:
        """Raises `ProtocolError` for a line that never ends."""
        if not piece:
            self._fed_all = True
            if self._open_line:
                self._lines.append(b"".join(self._open_line))
                self._open_line = []
            return
        *complete, rest = piece.split(b"\n")
        for line in complete:
            self._lines.append(b"".join([*self._open_line, line]))
            self._open_line = []
            self._open_bytes = 0
        if rest:
            self._open_line.append(rest)
            self._open_bytes += len(rest)
        if self._open_bytes > LONGEST_LINE:
            raise ProtocolError(f"The server sent a line of more than {LONGEST_LINE} bytes.")

    def take(self) -> T | None:
        """The next item, or None if there is none yet, or no more. Raises `ProtocolError` and `StatusError`."""
        while self._lines:
            item = self._item_of_line(self._lines.popleft().removesuffix(b"\r"))
            if item is not None:
                return item
        if self._fed_all:
            self._check_complete()
        return None

    def _item_of_line(self, line: bytes) -> T | None:
        raise NotImplementedError

    def _check_complete(self) -> None:
        """Raises `ProtocolError` if the stream had more to say."""

    def _item(self, text: bytes) -> T:
        """The item that a JSON text stands for; an error object is raised."""
        try:
            return self._read(text)
        except ProtocolError:
            pass
        try:
            said = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError):
            said = None
        shown = text[:_SHOWN].decode(errors="replace")
        raise refusal_in_stream(said, self._request_id) or ProtocolError(
            f"The stream holds a malformed chunk: {shown!r}"
        )


class EventReader(StreamReader[T]):
    """Server-sent events, the last of which is `[DONE]`. Lines end in LF or CR LF."""

    def __init__(self, read: Callable[[bytes], T], request_id: str | None = None) -> None:
        super().__init__(read, request_id)
        self._data: list[bytes] = []
        self._done = False

    def _item_of_line(self, line: bytes) -> T | None:
        if line:
            name, _, value = line.partition(b":")
            if name == b"data":
                self._data.append(value.removeprefix(b" "))
            return None  # a comment, or a field that is of no use here
        text = b"\n".join(self._data)
        self._data.clear()
        if text == b"[DONE]":
            self._done = True
        if not text or self._done:
            return None
        return self._item(text)

    def _check_complete(self) -> None:
        if not self._done and self._data != [b"[DONE]"]:
            raise ProtocolError("The stream ended before it was complete.")


class LineReader(StreamReader[T]):
    """A JSON text a line; empty lines mean nothing."""

    def _item_of_line(self, line: bytes) -> T | None:
        return self._item(line) if line.strip() else None
