"""JSON read while it arrives: values are passed on as they are written, and errors found where they stand."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

from headrace.text.source import EndOfText, Malformed, Reading, TextSource

Emit = Callable[[str], None]

_PLAIN = re.compile(r'[^"\\\x00-\x1f]*')
_CONTROL = re.compile(r"[\x00-\x1f]*")
_WORD = re.compile(r"[-+.0-9A-Za-z]*")
_SPACE = re.compile(r"[ \t\n\r]*")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][-+]?\d+)?\Z")
_HEX = re.compile(r"[0-9a-fA-F]")
_DEEPEST = 64


def copy_value(source: TextSource, emit: Emit, depth: int = 0) -> Reading[None]:
    """Read a JSON value and pass its text on. Line breaks inside a string, which models write, become escapes.

    Raises `Malformed` where it is no JSON, or nested too deep.
    """
    if depth > _DEEPEST:
        raise Malformed
    match (yield from source.peek()):
        case "{":
            yield from copy_object(source, emit, depth)
        case "[":
            yield from _copy_array(source, emit, depth)
        case '"':
            yield from _copy_string(source, emit)
        case _:
            yield from _copy_word(source, emit)


def copy_object(source: TextSource, emit: Emit, depth: int = 0) -> Reading[None]:
    """As `copy_value`, of an object only."""
    emit((yield from source.expect("{")))
    if (yield from _copy_space(source, emit)) == "}":
        emit((yield from source.expect("}")))
        return
    while True:
        yield from _copy_space(source, emit)
        yield from _copy_string(source, emit)
        yield from _copy_space(source, emit)
        emit((yield from source.expect(":")))
        yield from _copy_space(source, emit)
        yield from copy_value(source, emit, depth + 1)
        yield from _copy_space(source, emit)
        sign = yield from source.expect(",", "}")
        emit(sign)
        if sign == "}":
            return


def read_string(source: TextSource) -> Reading[str]:
    """Read a JSON string and return what it says."""
    pieces: list[str] = []
    yield from _copy_string(source, pieces.append)
    said: str = json.loads("".join(pieces))
    if not said.isascii() and not _is_unicode(said):
        raise Malformed
    return said


def read_value_text(source: TextSource) -> Reading[str]:
    """Read a JSON value and return its text."""
    pieces: list[str] = []
    yield from copy_value(source, pieces.append)
    return "".join(pieces)


def _copy_array(source: TextSource, emit: Emit, depth: int) -> Reading[None]:
    emit((yield from source.expect("[")))
    if (yield from _copy_space(source, emit)) == "]":
        emit((yield from source.expect("]")))
        return
    while True:
        yield from _copy_space(source, emit)
        yield from copy_value(source, emit, depth + 1)
        yield from _copy_space(source, emit)
        sign = yield from source.expect(",", "]")
        emit(sign)
        if sign == "]":
            return


def _copy_string(source: TextSource, emit: Emit) -> Reading[None]:
    emit((yield from source.expect('"')))
    while True:
        following = yield from source.peek()
        if following == "":
            raise EndOfText
        if following == '"':
            emit((yield from source.expect('"')))
            return
        if following == "\\":
            emit((yield from _escape(source)))
        elif following < " ":
            emit(json.dumps(source.run(_CONTROL))[1:-1])
        else:
            emit(source.run(_PLAIN))


def _escape(source: TextSource) -> Reading[str]:
    escape = yield from source.expect(*(f"\\{sign}" for sign in '"\\/bfnrtu'))
    if escape == "\\u":
        for _ in range(4):
            digit = yield from source.peek()
            if not _HEX.match(digit):
                raise EndOfText if digit == "" else Malformed
            escape += yield from source.expect(digit)
    return escape


def _copy_word(source: TextSource, emit: Emit) -> Reading[None]:
    """A number, true, false or null."""
    word = ""
    while True:
        word += source.run(_WORD)
        following = yield from source.peek()
        if following == "" or not _WORD.fullmatch(following):
            break
    if word not in ("true", "false", "null") and not _NUMBER.match(word):
        raise EndOfText if following == "" else Malformed
    emit(word)


def _copy_space(source: TextSource, emit: Emit) -> Reading[str]:
    """White space is passed on; returns the character after it."""
    while True:
        if space := source.run(_SPACE):
            emit(space)
        following = yield from source.peek()
        if following == "" or not _SPACE.fullmatch(following):
            return following


def _is_unicode(text: str) -> bool:
    """False of text with half a surrogate pair, which an escape can write."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def is_object_text(text: str) -> bool:
    """Whether `text` is a JSON object."""
    try:
        value: Any = json.loads(text)
    except (ValueError, RecursionError):
        return False
    return isinstance(value, dict)
