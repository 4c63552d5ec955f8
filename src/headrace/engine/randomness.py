"""Stateless random numbers: the draw at a position is a function of the seed and the position, nothing else.

The generator is Philox4x32-10 (Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011):
a keyed bijection of 128-bit counters. There is no state to save, so a sequence draws the same numbers alone, in any
batch, after preemption and after a restart.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

ROUNDS = 10

_MULTIPLIERS = np.array([[0xD2511F53], [0xCD9E8D57]], dtype=np.uint64)
_KEY_STEPS = np.array([[[0x9E3779B9 * step], [0xBB67AE85 * step]] for step in range(ROUNDS)], dtype=np.uint64)
"""What a key has grown by in each round, [ROUNDS, 2, 1]."""
_LOW_WORD = np.uint64(0xFFFFFFFF)
_WORD_BITS = np.uint64(32)
_UINT64 = (1 << 64) - 1


def philox4x32(counters: NDArray[np.uint64], keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Philox4x32-10 of each column: `counters` [4, N] and `keys` [2, N] hold 32-bit words, as does the result [4, N].

    The words are kept in uint64 so that a 32 x 32-bit product fits.
    """
    # Words 0 and 2 are multiplied, words 1 and 3 are not: each pair is one array [2, N].
    even, odd = counters[::2], counters[1::2]
    for round_keys in (keys + _KEY_STEPS) & _LOW_WORD:
        products = even * _MULTIPLIERS
        even = (products >> _WORD_BITS)[::-1] ^ odd ^ round_keys
        odd = (products & _LOW_WORD)[::-1]
    return np.stack((even[0], odd[0], even[1], odd[1]))


def uniforms(seeds: Sequence[int], positions: Sequence[int]) -> NDArray[np.float64]:
    """One number in [0, 1) for each pair of a seed and an output position.

    A seed may be any integer; it is the key, taken modulo 2**64. The position (0 ... 2**64 - 1) is the counter's low
    half, its high half is zero. The result is the top 53 bits of the first two output words, times 2**-53: every
    multiple of 2**-53 in [0, 1) is equally likely.
    """
    seed = np.array([value & _UINT64 for value in seeds], dtype=np.uint64)
    position = np.array(positions, dtype=np.uint64)
    zero = np.zeros_like(position)
    counters = np.stack((position & _LOW_WORD, position >> _WORD_BITS, zero, zero))
    words = philox4x32(counters, np.stack((seed & _LOW_WORD, seed >> _WORD_BITS)))
    bits = ((words[0] << _WORD_BITS) | words[1]) >> np.uint64(11)
    return bits.astype(np.float64) * 2.0**-53
