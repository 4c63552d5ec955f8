"""Turns a growing list of token ids into text, whole characters at a time.

`tokenizers` has a `DecodeStream` for this. It raises on many streams with byte-fallback tokens ("Invalid prefix
encountered"), forgets what it held when a character stays unfinished, and decodes every token twice. Where the bytes
of each token are known, `ByteDecoder` does without it: it is an incremental UTF-8 decoder, so any split of a stream
gives the same text and nothing can be lost. `WindowDecoder` serves the decoders that are more than joined bytes.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Sequence
from typing import Protocol

from headrace.text.token_bytes import TokenBytes

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands in text for bytes that are no character."""


class IncrementalDecoder(Protocol):
    """Text of tokens as they come. Never raises, whatever the ids; ids beyond the vocabulary give no text.

    Bytes that cannot become a character show as U+FFFD as soon as a later token proves it; bytes that are still
    unfinished at the end are dropped.
    """

    def push(self, ids: Sequence[int]) -> str:
        """The text completed by these ids; concatenated, it does not depend on how the ids were split."""

    def finish(self) -> str:
        """Whole characters that were still held."""


class ByteDecoder:
    """An `IncrementalDecoder` over the bytes of the tokens.

    `prompt_ids` are the context of the first token: a character that they leave unfinished is completed, and the
    `dropped_spaces` at the start of a text are dropped only if they show no text themselves.
    """

    def __init__(self, token_bytes: TokenBytes, prompt_ids: Sequence[int], *, dropped_spaces: int) -> None:
        self._token_bytes = token_bytes
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._prompt_tail = unfinished_tail(_last_bytes(token_bytes, prompt_ids))
        prompt_shows_text = dropped_spaces > 0 and any(token_bytes[token_id] for token_id in prompt_ids)
        self._spaces_to_drop = 0 if prompt_shows_text else dropped_spaces
        self._started = not self._spaces_to_drop and not self._prompt_tail

    def push(self, ids: Sequence[int]) -> str:
        token_bytes = self._token_bytes
        data = b"".join([token_bytes[token_id] for token_id in ids])
        if not self._started:
            data = self._start(data)
        return self._utf8.decode(data)

    def finish(self) -> str:
        """Nothing: only unfinished characters are ever held, and those are dropped."""
        self._utf8.reset()
        return ""

    def _start(self, data: bytes) -> bytes:
        while self._spaces_to_drop and data.startswith(b" "):
            data = data[1:]
            self._spaces_to_drop -= 1
        if not data:
            return data
        self._started = True
        # A prompt that ends inside a character is no fault of the output that does not go on with it.
        return self._prompt_tail + data if _continues(data[0]) else data


class WindowDecoder:
    """An `IncrementalDecoder` over any function from ids to text.

    The text of a token is what it adds to that of the few tokens before it. It is held back while it ends in U+FFFD,
    which may be half a character, for at most `_PATIENCE` tokens.
    """

    _CONTEXT = 6
    _PATIENCE = 8

    def __init__(self, decode: Callable[[list[int]], str], prompt_ids: Sequence[int]) -> None:
        self._decode = decode
        self._shown_ids = list(prompt_ids[-self._CONTEXT :])
        self._held_ids: list[int] = []

    def push(self, ids: Sequence[int]) -> str:
        return "".join([self._push_one(token_id) for token_id in ids])

    def finish(self) -> str:
        text = self._added_text().rstrip(REPLACEMENT)
        self._held_ids = []
        return text

    def _push_one(self, token_id: int) -> str:
        self._held_ids.append(token_id)
        text = self._added_text()
        if text.endswith(REPLACEMENT) and len(self._held_ids) < self._PATIENCE:
            return ""
        if text:
            self._shown_ids = self._held_ids[-self._CONTEXT :]
            self._held_ids = []
        elif len(self._held_ids) >= self._PATIENCE:  # tokens without text, such as skipped ones
            self._held_ids = []
        return text

    def _added_text(self) -> str:
        before = self._decode(self._shown_ids)
        return self._decode(self._shown_ids + self._held_ids)[len(before) :]


def unfinished_tail(data: bytes) -> bytes:
    """The bytes at the end of `data` that begin a UTF-8 character without finishing it."""
    for length in range(1, min(3, len(data)) + 1):
        tail = data[-length:]
        if not _continues(tail[0]):
            shown, consumed = codecs.utf_8_decode(tail, "replace", False)
            return tail if not shown and not consumed else b""
    return b""


def _continues(byte: int) -> bool:
    """Whether `byte` is inside a UTF-8 character rather than at its start."""
    return byte & 0xC0 == 0x80


def _last_bytes(token_bytes: TokenBytes, ids: Sequence[int]) -> bytes:
    """At least the last three bytes of the text of `ids`, where it has as many."""
    data = b""
    for token_id in reversed(ids):
        data = token_bytes[token_id] + data
        if len(data) >= 3:
            break
    return data
