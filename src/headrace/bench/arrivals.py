"""When requests arrive in an open loop: whether or not those before them have been answered."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from headrace.bench.errors import BenchError

Growth = Literal["linear", "exponential"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Requests a second: `first` when a load begins, `last` when it ends. inf: all at once.

    `burstiness` is the shape of the gamma distribution that the gaps are drawn from: 1 makes arrivals a Poisson
    process, less makes bursts, more makes them even. Raises `BenchError` for rates that make no sense.
    """

    first: float
    last: float
    growth: Growth = "linear"
    burstiness: float = 1.0

    def __post_init__(self) -> None:
        ramp = self.first != self.last
        if not (self.first > 0 and self.last > 0) or (ramp and math.inf in (self.first, self.last)):
            raise BenchError(f"A rate must be above 0, and a ramp from one number to another, got {self}.")
        if not 0 < self.burstiness < math.inf:
            raise BenchError(f"burstiness must be above 0, got {self.burstiness:g}.")

    def __str__(self) -> str:
        return f"{self.first:g}" if self.first == self.last else f"{self.first:g}..{self.last:g}"

    @property
    def mean(self) -> float:
        """Over the time of a load."""
        if self.first == self.last:
            return self.first
        if self.growth == "linear":
            return (self.first + self.last) / 2
        return (self.last - self.first) / math.log(self.last / self.first)


def arrival_times(rate: Rate, count: int, random_source: random.Random) -> list[float]:
    """Seconds after the beginning of a load at which its `count` requests arrive.

    They are drawn for a rate of 1 and stretched so that the last comes when `count` requests should have come at this
    rate: what is offered is what was asked for, in short loads too.
    """
    if math.isinf(rate.first):
        return [0.0] * count
    shape = rate.burstiness
    drawn = list(itertools.accumulate(random_source.gammavariate(shape, 1 / shape) for _ in range(count)))
    when = _time_of(rate, count)
    return [when(number * count / drawn[-1]) for number in drawn]


def _time_of(rate: Rate, count: int) -> Callable[[float], float]:
    """From how many requests should have come, to the time at which that is so: the inverse of the rate's integral."""
    first, seconds = rate.first, count / rate.mean
    if rate.first == rate.last:
        return lambda number: number / first
    if rate.growth == "linear":
        slope = (rate.last - first) / seconds
        # The root is taken in the form that loses nothing where the slope is small.
        return lambda number: 2 * number / (first + math.sqrt(max(first * first + 2 * slope * number, 0.0)))
    steepness = math.log(rate.last / first) / seconds
    return lambda number: math.log1p(number * steepness / first) / steepness
