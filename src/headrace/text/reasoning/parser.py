"""Splits an answer into what the model thought and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from headrace.text.reasoning.format import ReasoningFormat
from headrace.text.source import Reading, TextSource


@dataclass(frozen=True, slots=True)
class SplitText:
    """What a piece of an answer adds to either side."""

    reasoning: str
    content: str


class ReasoningParser:
    """Reads one answer. Any split of it into pieces gives the same two texts; markers are in neither.

    `opened` overrides that of the format. `interrupts` are markers that end the thinking and belong to the content.
    White space next to the markers belongs to neither side.
    """

    def __init__(self, form: ReasoningFormat, *, opened: bool | None = None, interrupts: Sequence[str] = ()) -> None:
        self.thinking = False
        self._form = form
        self._opened = form.opened if opened is None else opened
        self._interrupts = tuple(interrupts)
        self._reasoning: list[str] = []
        self._content: list[str] = []
        self._blank = ""
        self._source = TextSource()
        self._reading = self._answer(self._source)
        next(self._reading, None)  # up to where it waits for text

    def push(self, text: str) -> SplitText:
        """What more text tells. `thinking` is whether it ended within the thoughts."""
        self._source.feed(text)
        next(self._reading, None)
        return self._take()

    def finish(self) -> SplitText:
        """What was held back when no more text comes."""
        self._source.end()
        next(self._reading, None)
        return self._take()

    def _answer(self, source: TextSource) -> Reading[None]:
        self.thinking = self._opened
        source.mark()
        yield from source.skip_space()
        begun = yield from source.choose(*self._form.begins)
        if not begun and not self._opened:
            self._content.append(source.since_mark())
            source.release()
            yield from source.copy_rest(self._content.append)
            return
        source.release()
        self.thinking = True
        yield from source.skip_space()
        marker = yield from source.until(*self._form.ends, *self._interrupts, emit=self._think)
        self.thinking = False
        if marker in self._form.ends:
            yield from source.skip_space()
            yield from source.choose(*self._form.ends)  # some models close their thoughts twice
            yield from source.skip_space()
        elif marker is not None:
            self._content.append(marker)
        source.release()
        yield from source.copy_rest(self._content.append)

    def _think(self, text: str) -> None:
        text = self._blank + text
        shown = text.rstrip()
        self._blank = text[len(shown) :]
        self._reasoning.append(shown)

    def _take(self) -> SplitText:
        split = SplitText("".join(self._reasoning), "".join(self._content))
        self._reasoning.clear()
        self._content.clear()
        return split
