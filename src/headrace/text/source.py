"""Text that arrives in pieces, read by a parser that is written as if all of it were there.

A parser is a generator: where it cannot go on without more text it yields, and whoever feeds it resumes it. Every
method here decides by the text alone, never by where a piece ended, so a parser finds the same in any split.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from typing import TypeVar

T = TypeVar("T")
Reading = Generator[None, None, T]
"""A read that yields wherever it waits for more text, and returns a `T`."""

_SPACE = re.compile(r"\s*")


class Malformed(Exception):
    """The text is not what the format says."""


class EndOfText(Malformed):
    """The text ended where the format says that more must come."""


class TextSource:
    """A text that grows by `feed` until `end`, and the place up to which it has been read."""

    def __init__(self) -> None:
        self._text = ""
        self._place = 0
        self._dropped = 0
        self._mark: int | None = None
        self._ended = False

    def feed(self, text: str) -> None:
        """Append `text`. What has been read and is not behind a mark is forgotten."""
        keep = self._place if self._mark is None else self._mark
        self._text = self._text[keep:] + text
        self._place -= keep
        self._dropped += keep
        if self._mark is not None:
            self._mark = 0

    def end(self) -> None:
        """No more text will come."""
        self._ended = True

    @property
    def offset(self) -> int:
        """Characters read so far."""
        return self._dropped + self._place

    def mark(self) -> None:
        """Keep the text from here on, for `since`."""
        self._mark = self._place

    def release(self) -> None:
        """Forget the mark."""
        self._mark = None

    def since_mark(self) -> str:
        """The text read since the mark was set."""
        assert self._mark is not None
        return self._text[self._mark : self._place]

    def peek(self) -> Reading[str]:
        """The next character, not read yet; "" at the end."""
        while self._place == len(self._text):
            if self._ended:
                return ""
            yield
        return self._text[self._place]

    def run(self, pattern: re.Pattern[str]) -> str:
        """Read what is here of a run of characters; more of it may come. `pattern` matches a run of any length."""
        match = pattern.match(self._text, self._place)
        assert match is not None
        self._place = match.end()
        return match.group()

    def skip_space(self) -> Reading[str]:
        """Read white space; returns the character after it, as `peek` does."""
        while True:
            self.run(_SPACE)
            if self._place < len(self._text):
                return self._text[self._place]
            if self._ended:
                return ""
            yield

    def choose(self, *literals: str) -> Reading[str | None]:
        """Read the one of `literals` that comes next and return it; None, and nothing read, if none does."""
        while True:
            here = self._text[self._place : self._place + max(map(len, literals))]
            for literal in literals:
                if here.startswith(literal):
                    self._place += len(literal)
                    return literal
            if self._ended or not any(literal.startswith(here) for literal in literals):
                return None
            yield

    def expect(self, *literals: str) -> Reading[str]:
        """As `choose`, but one of `literals` must come. Raises `Malformed` if not."""
        found = yield from self.choose(*literals)
        if found is None:
            raise EndOfText if (yield from self.peek()) == "" else Malformed
        return found

    def until(self, *markers: str, emit: Callable[[str], None]) -> Reading[str | None]:
        """Pass text on to `emit` up to the first of `markers`, read that and return it; None if the text ends before.

        Text that may be the beginning of a marker is held back. A mark is set in front of the marker that was found.
        No marker may begin with another.
        """
        self._mark = None
        found = yield from self._pass_until(markers, emit)
        if found is not None:
            self._mark = self._place - len(found)
        return found

    def copy_until(self, *markers: str, emit: Callable[[str], None]) -> Reading[None]:
        """As `until`, with the mark left where it is. Raises `EndOfText` if no marker comes."""
        if (yield from self._pass_until(markers, emit)) is None:
            raise EndOfText

    def copy_rest(self, emit: Callable[[str], None]) -> Reading[None]:
        """Pass on all that comes."""
        yield from self._pass_until((), emit)

    def take_until(self, *markers: str) -> Reading[str]:
        """The text up to the first of `markers`, which is read as well. Raises `EndOfText` if none comes."""
        while True:
            found = _first(self._text, self._place, markers)
            if found is not None:
                start, marker = found
                taken = self._text[self._place : start]
                self._place = start + len(marker)
                return taken
            if self._ended:
                raise EndOfText
            yield

    def _pass_until(self, markers: tuple[str, ...], emit: Callable[[str], None]) -> Reading[str | None]:
        while True:
            found = _first(self._text, self._place, markers)
            if found is not None:
                start, marker = found
                self._pass(start, emit)
                self._place = start + len(marker)
                return marker
            held = 0 if self._ended else _beginning(self._text, self._place, markers)
            self._pass(len(self._text) - held, emit)
            if self._ended:
                return None
            yield

    def _pass(self, stop: int, emit: Callable[[str], None]) -> None:
        if stop > self._place:
            text = self._text[self._place : stop]
            self._place = stop
            emit(text)


def _first(text: str, start: int, markers: tuple[str, ...]) -> tuple[int, str] | None:
    found = [(place, marker) for marker in markers if (place := text.find(marker, start)) >= 0]
    return min(found) if found else None


def _beginning(text: str, start: int, markers: tuple[str, ...]) -> int:
    """The length of the longest end of `text` that is the beginning of a marker."""
    longest = min(len(text) - start, max(map(len, markers), default=1) - 1)
    for length in range(longest, 0, -1):
        tail = text[len(text) - length :]
        if any(marker.startswith(tail) for marker in markers):
            return length
    return 0
