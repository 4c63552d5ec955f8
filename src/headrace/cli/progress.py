"""How far loading is: a bar on a terminal, a log line now and then elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tqdm import tqdm

log = logging.getLogger(__name__)

_SECONDS_BETWEEN_LINES = 2.0


class LoadProgress:
    """A `ProgressListener` for bytes of weights."""

    def __init__(self) -> None:
        self._draw = sys.stderr.isatty()
        self._bar: tqdm[None] | None = None
        self._next_line = 0.0

    def __call__(self, done: int, total: int) -> None:
        if self._draw:
            self._update_bar(done, total)
        elif time.monotonic() >= self._next_line or done == total:
            log.info("Loading weights: %.0f of %.0f MB", done / 1e6, total / 1e6)
            self._next_line = time.monotonic() + _SECONDS_BETWEEN_LINES

    def close(self) -> None:
        """Leave the bar as it is; call before anything else is printed."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _update_bar(self, done: int, total: int) -> None:
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc="Loading weights", unit="B", unit_scale=True, leave=False)
        self._bar.update(done - self._bar.n)
        if done == total:
            self.close()
