"""Philox4x32-10 against the published vectors, and the numbers made of it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from headrace.engine.randomness import philox4x32, uniforms

# Random123's known-answer file (kat_vectors), philox4x32 with 10 rounds: counter, key, result.
KNOWN_ANSWERS = [
    ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
    ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
    (
        [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
        [0xA4093822, 0x299F31D0],
        [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
    ),
]


def test_known_answers_all_at_once() -> None:
    counters, keys, answers = (np.array(part, dtype=np.uint64).T for part in zip(*KNOWN_ANSWERS, strict=True))
    assert np.array_equal(philox4x32(counters, keys), answers)


def test_uniform_is_the_top_53_bits_of_the_first_two_words() -> None:
    assert uniforms([0], [0])[0] == ((0x6627E8D5E169C58D >> 11) * 2.0**-53)


def test_key_is_the_seed_and_counter_the_position_low_word_first() -> None:
    seed, position = 0x299F31D0A4093822, 0x85A308D3243F6A88
    counter = np.array([[0x243F6A88], [0x85A308D3], [0], [0]], dtype=np.uint64)
    key = np.array([[0xA4093822], [0x299F31D0]], dtype=np.uint64)
    high, low = (int(word) for word in philox4x32(counter, key)[:2, 0])
    assert uniforms([seed], [position])[0] == ((high << 32 | low) >> 11) * 2.0**-53


@pytest.mark.parametrize(("seed", "same"), [(-1, 2**64 - 1), (2**63 + 5, 5 - 2**63), (2**64 + 7, 7), (-(2**63), 2**63)])
def test_seeds_wrap_at_64_bits(seed: int, same: int) -> None:
    assert uniforms([seed], [3]) == uniforms([same], [3])


def test_every_seed_and_position_has_its_own_number() -> None:
    seeds, positions = np.divmod(np.arange(10_000), 100)
    numbers = uniforms(seeds.tolist(), positions.tolist())
    assert len(set(numbers)) == len(numbers)
    assert uniforms([5], [17])[0] == numbers[5 * 100 + 17]


def test_numbers_are_uniform_over_seeds_and_over_positions() -> None:
    count = 20_000
    over_positions = uniforms([42] * count, range(count))
    over_seeds = uniforms(range(count), [0] * count)
    for numbers in (over_positions, over_seeds):
        assert 0 <= numbers.min() < numbers.max() < 1
        assert stats.kstest(numbers, "uniform").pvalue > 0.01
    assert abs(np.corrcoef(over_positions[:-1], over_positions[1:])[0, 1]) < 0.02
