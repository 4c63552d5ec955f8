"""Grammars in a step: the tokens they allow are found beside the forward pass, and the others banned all at once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from headrace.core.machine import usable_cores
from headrace.schedule.plan import PlanRow

if TYPE_CHECKING:
    from headrace.grammar.masks import MaskFiller, TokenMasks


class GrammarMasks:
    """Finds the masks of steps, one after the other. What that needs is made when the first row needs it."""

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size = vocab_size
        self._filler: MaskFiller | None = None

    def start(self, rows: Sequence[PlanRow]) -> Future[TokenMasks] | None:
        """Begin with the masks of those `rows` that have a grammar. None if there are none."""
        if all(row.grammar is None for row in rows):
            return None
        from headrace.grammar.masks import MaskedRow, MaskFiller  # llguidance, which most servers never need

        if self._filler is None:
            # All cores: the sooner they are done, the less they take turns with the threads of the forward pass.
            self._filler = MaskFiller(self._vocab_size, usable_cores())
        return self._filler.start(
            [
                MaskedRow(at, row.grammar, row.sampling.ignore_eos)
                for at, row in enumerate(rows)
                if row.grammar is not None
            ]
        )


def ban_others(logits: Tensor, masks: TokenMasks) -> None:
    """z[i] = -inf for the tokens that a row's grammar does not allow."""
    banned = ~masks.allowed
    if logits.device.type == "cpu":
        # Most masks are nearly full or nearly empty: numpy skips what it need not write, torch does not.
        memory = logits.numpy()
        for at, row in zip(masks.rows, banned, strict=True):
            np.copyto(memory[at], -np.inf, where=row)
        return
    rows = torch.tensor(masks.rows, device=logits.device)
    logits[rows] = logits[rows].masked_fill_(torch.from_numpy(banned).to(logits.device), -torch.inf)
