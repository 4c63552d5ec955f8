"""What keeps a benchmark from being run. What goes wrong while it runs is counted, not raised."""

from __future__ import annotations


class BenchError(Exception):
    """The data set, the load or the server does not allow what was asked for. The text is for the terminal."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message
