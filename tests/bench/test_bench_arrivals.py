"""When requests arrive: what a rate, a ramp and bursts mean."""

from __future__ import annotations

import itertools
import math
import random
import statistics

import pytest

from headrace.bench.arrivals import Rate, arrival_times
from headrace.bench.errors import BenchError

COUNT = 4000


def times(rate: Rate, count: int = COUNT, seed: int = 1) -> list[float]:
    return arrival_times(rate, count, random.Random(seed))


def gaps(arrivals: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise([0.0, *arrivals])]


@pytest.mark.parametrize(
    "rate",
    [
        Rate(first=5, last=5),
        Rate(first=5, last=5, burstiness=0.3),
        Rate(first=2, last=10),
        Rate(first=10, last=2),
        Rate(first=2, last=10, growth="exponential"),
        Rate(first=10, last=2, growth="exponential"),
    ],
)
def test_what_is_offered_is_what_was_asked_for(rate: Rate):
    arrivals = times(rate)
    assert arrivals == sorted(arrivals)
    assert arrivals[-1] == pytest.approx(COUNT / rate.mean)
    assert min(gaps(arrivals)) >= 0


@pytest.mark.parametrize(("growth", "halfway"), [("linear", 85), ("exponential", 40)])
def test_a_ramp_goes_from_its_first_rate_to_its_last(growth: str, halfway: float):
    even = 1e6
    arrivals = times(Rate(first=10, last=160, growth=growth, burstiness=even))
    assert 10 / arrivals[9] == pytest.approx(10, rel=0.2)
    assert 100 / (arrivals[-1] - arrivals[-101]) == pytest.approx(160, rel=0.1)
    half = next(number for number, arrival in enumerate(arrivals) if arrival > arrivals[-1] / 2)
    assert 100 / (arrivals[half + 50] - arrivals[half - 50]) == pytest.approx(halfway, rel=0.1)


@pytest.mark.parametrize("burstiness", [0.25, 1.0, 4.0])
def test_burstiness_is_the_shape_of_the_gaps(burstiness: float):
    found = gaps(times(Rate(first=7, last=7, burstiness=burstiness)))
    variation = statistics.stdev(found) / statistics.mean(found)
    assert variation == pytest.approx(1 / math.sqrt(burstiness), rel=0.1)


def test_an_endless_rate_is_all_at_once():
    assert times(Rate(first=math.inf, last=math.inf), 3) == [0.0, 0.0, 0.0]


def test_the_same_seed_gives_the_same_arrivals():
    rate = Rate(first=3, last=9)
    assert times(rate, 20) == times(rate, 20)
    assert times(rate, 20) != times(rate, 20, seed=2)


@pytest.mark.parametrize(
    "fields",
    [
        {"first": 0.0, "last": 1.0},
        {"first": 1.0, "last": -1.0},
        {"first": 1.0, "last": math.inf},
        {"first": math.nan, "last": math.nan},
        {"first": 1.0, "last": 1.0, "burstiness": 0.0},
        {"first": 1.0, "last": 1.0, "burstiness": math.inf},
    ],
)
def test_rates_that_make_no_sense(fields: dict[str, float]):
    with pytest.raises(BenchError, match="above 0"):
        Rate(**fields)
