"""Finds stop strings in text that comes in pieces."""

from __future__ import annotations

from collections import deque


class StopMatcher:
    """Watches a growing text for the stop string that completes first; of those that complete together, the one
    that comes first in `stops`.

    Text is held back only while it may still become part of a stop string, and not at all with `include_stop`, where
    the text ends after the stop string instead of before it. How the text was cut into pieces makes no difference
    to what is shown of it in total.

    An Aho-Corasick automaton: its states are the beginnings of stop strings, and it is always in the longest one
    that the text ends with. So the depth of the state is the number of characters to hold back, and a character
    costs the same however many stop strings there are.
    """

    def __init__(self, stops: tuple[str, ...], *, include_stop: bool) -> None:
        self._include_stop = include_stop
        self._automaton = _Automaton(stops)
        self._watching = bool(stops)
        self._state = 0
        self._held = ""
        self._stopped = False

    def push(self, text: str) -> tuple[str, str | None]:
        """Take more text; returns what may be shown now, and the stop string it completed.

        Once one is complete, whatever follows is discarded.
        """
        if self._stopped:
            return "", None
        if not self._watching:
            return text, None
        follow, stop_at = self._automaton.follow, self._automaton.stop_at
        state = self._state
        for position, character in enumerate(text):
            state = follow(state, character)
            if (stop := stop_at[state]) is not None:
                return self._stop(text[: position + 1], stop), stop
        return self._advance(text, state), None

    def pass_over(self, text: str) -> str:
        """Take text in which a completed stop string does not count (the first `min_tokens` tokens).

        Returns what may be shown now. A stop string that begins in `text` and ends after it does count.
        """
        if self._stopped:
            return ""
        if not self._watching:
            return text
        state = self._state
        for character in text:
            state = self._automaton.follow(state, character)
        return self._advance(text, self._automaton.unfinished(state))

    def finish(self) -> str:
        """The text still held back, when no more will come."""
        held, self._held, self._state = self._held, "", 0
        return held

    def _advance(self, text: str, state: int) -> str:
        self._state = state
        if self._include_stop:
            return text
        text = self._held + text
        shown = len(text) - self._automaton.depth[state]
        self._held = text[shown:]
        return text[:shown]

    def _stop(self, text: str, stop: str) -> str:
        self._stopped = True
        if self._include_stop:
            return text
        text = self._held + text
        self._held = ""
        return text[: len(text) - len(stop)]


class _Automaton:
    """`depth` is the length of a state's text, `stop_at` the stop string to report when the state is entered."""

    def __init__(self, stops: tuple[str, ...]) -> None:
        self._children: list[dict[str, int]] = [{}]
        self._shorter = [0]  # the longest state that this one's text ends with
        self.depth = [0]
        self.stop_at: list[str | None] = [None]
        for stop in stops:
            self._add(stop)
        self._link(rank={stop: rank for rank, stop in reversed(list(enumerate(stops)))})

    def follow(self, state: int, character: str) -> int:
        """The state after `character`."""
        children = self._children
        while (following := children[state].get(character)) is None:
            if not state:
                return 0
            state = self._shorter[state]
        return following

    def unfinished(self, state: int) -> int:
        """The longest state of `state`'s text that can still grow."""
        while state and not self._children[state]:
            state = self._shorter[state]
        return state

    def _add(self, stop: str) -> None:
        state = 0
        for character in stop:
            following = self._children[state].get(character)
            if following is None:
                following = self._children[state][character] = len(self.depth)
                self._children.append({})
                self._shorter.append(0)
                self.depth.append(self.depth[state] + 1)
                self.stop_at.append(None)
            state = following
        self.stop_at[state] = stop

    def _link(self, rank: dict[str, int]) -> None:
        """Breadth first, so that shorter states are complete before longer ones look at them."""
        queue = deque(self._children[0].values())
        while queue:
            state = queue.popleft()
            shorter = self._shorter[state]
            for character, following in self._children[state].items():
                self._shorter[following] = self.follow(shorter, character)
                queue.append(following)
            ending_here = [stop for stop in (self.stop_at[state], self.stop_at[shorter]) if stop is not None]
            self.stop_at[state] = min(ending_here, key=rank.__getitem__, default=None)
