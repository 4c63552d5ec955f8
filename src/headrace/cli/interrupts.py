"""The signals that end a server."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Iterator


class Interrupts:
    """SIGINT and SIGTERM: the first asks to stop, the second to stop at once."""

    def __init__(self) -> None:
        self.stop = asyncio.Event()
        self.stop_at_once = asyncio.Event()

    @contextlib.contextmanager
    def installed(self) -> Iterator[None]:
        """Listen for the signals inside the block. Needs the main thread and a running event loop."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._on_signal)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _on_signal(self) -> None:
        (self.stop_at_once if self.stop.is_set() else self.stop).set()
