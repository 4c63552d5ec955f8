"""Stop strings that count only after `min_tokens` tokens."""

from __future__ import annotations

from headrace.text import StopMatcher


class StopSearch:
    """A `StopMatcher` that sleeps through an answer's first `min_tokens` tokens.

    A stop string completed by one of these is never noticed; one that only begins there is.
    """

    def __init__(self, stops: tuple[str, ...], *, include_stop: bool, min_tokens: int) -> None:
        self._stops = stops
        self._matcher = StopMatcher(stops, include_stop=include_stop)
        self._holds_back = 0 if include_stop else max(len(stop) for stop in stops) - 1
        self._longest_start = max(len(stop) for stop in stops) - 1
        self._asleep_for = min_tokens
        self._tail = ""  # text of the sleep in which a stop string may begin

    def push_token(self, text: str) -> tuple[str, str | None]:
        """`text` is what the next token has completed. The text that may be shown, and the stop string completed."""
        if self._asleep_for == 0:
            return self._matcher.push(text)
        self._asleep_for -= 1
        ...
