"""Memory for results that is used again and again."""

from __future__ import annotations

import torch
from torch import Tensor


class RowMemory:
    """Memory for a float32 array with `width` columns."""

    def __init__(self, width: int) -> None:
        self._memory = torch.empty(0, width)

    def take(self, rows: int) -> Tensor:
        """The first `rows` rows, with whatever is in them."""
        if rows > len(self._memory):
            # Rounded up, so that a batch that grows one by one does not ask each time; untouched rows cost nothing.
            self._memory = torch.empty(1 << (rows - 1).bit_length(), self._memory.shape[1])
        return self._memory[:rows]
