"""The tokens that a step's answers may go on with."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import llguidance
import numpy as np
from numpy.typing import NDArray

from headrace.grammar.state import GrammarState


@dataclass(frozen=True, slots=True)
class MaskedRow:
    """A row whose next token must follow a grammar: its place `at` among all rows, and where it stands.

    `runs_on`: as long as the grammar allows more, it is not to end.
    """

    at: int
    state: GrammarState
    runs_on: bool


@dataclass(frozen=True, slots=True)
class TokenMasks:
    """`allowed` [len(rows), vocab_size] bool. `complete` are the places of rows that can only end, `errors` what is
    wrong with the grammar of others, by place. `seconds` is what it took to find out.
    """

    rows: list[int]
    allowed: NDArray[np.bool_]
    complete: list[int]
    errors: Mapping[int, str]
    seconds: float

    def placed(self, places: Mapping[int, int]) -> TokenMasks:
        """The same with other places: `places` has the new one for each."""
        return replace(
            self,
            rows=[places[at] for at in self.rows],
            complete=[places[at] for at in self.complete],
            errors={places[at]: error for at, error in self.errors.items()},
        )


class MaskFiller:
    """Finds the tokens of a step beside its forward pass, several rows at a time."""

    def __init__(self, vocab_size: int, threads: int) -> None:
        self._vocab_size = vocab_size
        self._executor = llguidance.LLExecutor(threads)
        self._beside = ThreadPoolExecutor(1, thread_name_prefix="headrace-masks")

    def start(self, rows: Sequence[MaskedRow]) -> Future[TokenMasks]:
        """Begin; none of the states may change before the result is there."""
        return self._beside.submit(self._fill, rows)

    def _fill(self, rows: Sequence[MaskedRow]) -> TokenMasks:
        began = time.monotonic()
        bits = np.zeros((len(rows), -(-self._vocab_size // 32)), np.uint32)
        self._executor.unsafe_compute_mask_ptr(
            [(row.state.matcher, place) for place, row in enumerate(rows)], bits.ctypes.data, bits.strides[0], len(rows)
        )
        allowed = np.unpackbits(bits.view(np.uint8), axis=1, count=self._vocab_size, bitorder="little").view(np.bool_)
        errors = {row.at: problem for row in rows if (problem := row.state.problem) is not None}
        eos_ids = rows[0].state.eos_ids
        for token_id in eos_ids:
            bits[:, token_id // 32] &= ~np.uint32(1 << token_id % 32)
        goes_on = np.asarray(bits.any(axis=1))
        runs_on = goes_on & np.array([row.runs_on for row in rows])
        for token_id in eos_ids:
            allowed[runs_on, token_id] = False
        complete = [row.at for row, more in zip(rows, goes_on, strict=True) if not more and row.at not in errors]
        return TokenMasks([row.at for row in rows], allowed, complete, errors, time.monotonic() - began)
