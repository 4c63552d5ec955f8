"""A call written as a JSON object with its name and its arguments, which most formats wrap in one way or another."""

from __future__ import annotations

import json
from collections.abc import Collection

from headrace.text.source import EndOfText, Malformed, Reading, TextSource
from headrace.text.tools.json_text import copy_object, copy_value, is_object_text, read_string, read_value_text
from headrace.text.tools.writer import CallWriter

_ARGUMENTS = ("arguments", "parameters")


class _Call:
    """What is known of a call while its object is read. It begins once both its name and its arguments have."""

    def __init__(self, writer: CallWriter, known: Collection[str] | None) -> None:
        self.writer = writer
        self.complete = False
        self.name: str | None = None
        self._known = known
        self._arguments: str | None = None

    def named(self, name: str) -> None:
        if self.name is not None or (self._known is not None and name not in self._known):
            raise Malformed
        self.name = name
        if self._arguments is not None:
            self.give(self._arguments)

    def give(self, arguments: str) -> None:
        """The arguments whole; kept until the name is known."""
        if self.complete or (self._arguments is not None and self.name is None):
            raise Malformed
        self._arguments = arguments
        if self.name is not None:
            self.writer.begin(self.name)
            self.writer.arguments(arguments)
            self.complete = True

    def close(self) -> None:
        if self.name is None:
            raise Malformed
        if not self.complete:
            self.give("{}")


def read_call(source: TextSource, writer: CallWriter, known: Collection[str] | None = None) -> Reading[None]:
    """Read one call: `{"name": …, "arguments": {…}}`, or `parameters` for `arguments`; other keys say nothing.

    The arguments are told as they arrive if the name stands before them. A call whose object is not closed when the
    text ends is a call if its arguments are complete. `known`: names that make it a call, None if any does.
    Raises `Malformed` if it is none.
    """
    call = _Call(writer, known)
    try:
        yield from _read_object(source, call)
    except EndOfText:
        if not call.complete:
            raise
    call.close()
    writer.end()


def read_calls(source: TextSource, writer: CallWriter, known: Collection[str] | None = None) -> Reading[None]:
    """Read `[…]` of such calls. Each is a call even if what follows it is none."""
    yield from source.expect("[")
    if (yield from source.skip_space()) == "]":
        raise Malformed
    while True:
        yield from source.skip_space()
        yield from read_call(source, writer, known)
        if (yield from source.skip_space()) == "":
            return
        source.mark()
        if (yield from source.expect(",", "]")) == "]":
            return


def _read_object(source: TextSource, call: _Call) -> Reading[None]:
    yield from source.expect("{")
    if (yield from source.skip_space()) == "}":
        raise Malformed
    while True:
        yield from source.skip_space()
        key = yield from read_string(source)
        yield from source.skip_space()
        yield from source.expect(":")
        yield from source.skip_space()
        if key == "name":
            call.named((yield from read_string(source)))
        elif key in _ARGUMENTS:
            yield from _read_arguments(source, call)
        else:
            yield from copy_value(source, _ignore)
        yield from source.skip_space()
        if (yield from source.expect(",", "}")) == "}":
            return


def _read_arguments(source: TextSource, call: _Call) -> Reading[None]:
    following = yield from source.peek()
    if following == "{" and call.name is not None and not call.complete:
        call.writer.begin(call.name)
        yield from copy_object(source, call.writer.arguments)
        call.complete = True
    elif following == '"':  # some models write the object as the text of it
        text = yield from read_string(source)
        if not is_object_text(text):
            raise Malformed
        call.give(text)
    else:
        text = yield from read_value_text(source)
        if text != "null" and not isinstance(json.loads(text), dict):
            raise Malformed
        call.give("{}" if text == "null" else text)


def _ignore(text: str) -> None:
    """A value that says nothing of the call."""
