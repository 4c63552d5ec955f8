"""How many token events a streamed chunk holds: little ones first, so that a reader has something soon."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkGrowth:
    """Chunks of `smallest` events first, each then `factor` times the one before, `largest` at most.

    A fractional size counts as the next whole one. With a factor of 1 or less, or nothing to grow to, every chunk has
    `largest` events.
    """

    largest: int = 50
    smallest: int = 1
    factor: float = 3.0

    def sizes(self) -> Iterator[int]:
        """Events of the first chunk, the second, and so on without end."""
        if self.factor <= 1 or self.smallest < 1 or self.smallest >= self.largest:
            return itertools.repeat(self.largest)
        return self._growing()

    def _growing(self) -> Iterator[int]:
        size: float = self.smallest
        while True:
            yield math.ceil(size)
            size = min(size * self.factor, self.largest)
