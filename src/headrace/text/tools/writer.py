"""The events of an answer, and the parser that a format's grammar becomes."""

from __future__ import annotations

from collections.abc import Callable

from headrace.text.source import Malformed, Reading, TextSource
from headrace.text.tools.events import CallArguments, CallBegun, CallBroken, ContentText, ToolEvent


class CallWriter:
    """Where a grammar tells what it reads from `source`.

    White space between a call and the text around it belongs to neither and is dropped.
    """

    def __init__(self, source: TextSource) -> None:
        self._source = source
        self._events: list[ToolEvent] = []
        self._blank = ""
        self._after_call = False
        self._open = False
        self._lead = ""
        self._told = 0

    def content(self, text: str) -> None:
        if self._after_call:
            text = text.lstrip()
        if not text:
            return
        self._after_call = False
        text = self._blank + text
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        self._show(shown)

    def begin(self, name: str, call_id: str | None = None) -> None:
        """A call whose arguments follow. Raises `Malformed` for a name that is none."""
        if not name.isprintable() or name.strip() != name or not name:
            raise Malformed
        self._lead, self._blank = self._blank, ""
        self._open = True
        self._told = self._source.offset
        self._events.append(CallBegun(name, call_id))

    def arguments(self, text: str) -> None:
        self._told = self._source.offset
        if self._events and isinstance(last := self._events[-1], CallArguments):
            self._events[-1] = CallArguments(last.text + text)
        elif text:
            self._events.append(CallArguments(text))

    def end(self) -> None:
        """The arguments of the call are complete."""
        self._open = False
        self._after_call = True

    def attempt(self, call: Reading[None]) -> Reading[None]:
        """Read a call from the mark on. Where it turns out to be none, what was read of it is content."""
        try:
            yield from call
        except Malformed:
            self._give_up()
        self._source.release()

    def take(self) -> list[ToolEvent]:
        """The events since the last time."""
        events, self._events = self._events, []
        return events

    def finish(self) -> None:
        """Everything has been read."""
        self._show(self._blank)

    def _give_up(self) -> None:
        raw = self._source.since_mark()
        if not self._open:
            self.content(raw)
            return
        untold = self._source.offset - self._told
        self._open = False
        self._events.append(CallBroken(self._lead + raw, raw[len(raw) - untold :] if untold else ""))

    def _show(self, text: str) -> None:
        if not text:
            return
        if self._events and isinstance(last := self._events[-1], ContentText):
            self._events[-1] = ContentText(last.text + text)
        else:
            self._events.append(ContentText(text))


Grammar = Callable[[TextSource, CallWriter], Reading[None]]
"""Reads a whole answer and writes what it finds. It must read to the end, and raise nothing."""


class GrammarParser:
    """A `ToolParser` that runs a grammar."""

    def __init__(self, grammar: Grammar) -> None:
        self._source = TextSource()
        self._writer = CallWriter(self._source)
        self._reading = grammar(self._source, self._writer)
        next(self._reading, None)  # up to where it waits for text

    def push(self, text: str) -> list[ToolEvent]:
        self._source.feed(text)
        next(self._reading, None)
        return self._writer.take()

    def finish(self) -> list[ToolEvent]:
        self._source.end()
        for _ in self._reading:
            raise AssertionError("the grammar waits for text that will not come")
        self._writer.finish()
        return self._writer.take()
