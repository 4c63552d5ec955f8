"""The one histogram that is fed once a token."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class IntervalSeries:
    """The observations under one set of labels; for one thread."""

    def __init__(self, borders: Sequence[float]) -> None:
        self._borders = borders
        self._counts = [0] * (len(borders) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, count: int) -> None:
        """`count` intervals of `seconds` each."""
        self._counts[bisect_left(self._borders, seconds)] += count
        self._sum += seconds * count

    def samples(self) -> tuple[list[tuple[str, int]], float]:
        """The buckets, each with how many intervals were no longer, and the sum of all."""
        uppers = [*map(floatToGoString, self._borders), "+Inf"]
        return list(zip(uppers, accumulate(self._counts), strict=True)), self._sum


class Intervals(Collector):
    """A histogram shown under several names, each with its help text in `names`.

    Prometheus' own takes a lock and walks its buckets at every observation, and that under each name: a sixth of all
    that the API process does for a token.
    """

    def __init__(self, names: Mapping[str, str], label_names: Sequence[str], borders: Sequence[float]) -> None:
        self._names = names
        self._label_names = label_names
        self._borders = borders
        self._series: dict[tuple[str, ...], IntervalSeries] = {}

    def series(self, label_values: tuple[str, ...]) -> IntervalSeries:
        return self._series.setdefault(label_values, IntervalSeries(self._borders))

    def collect(self) -> Iterator[HistogramMetricFamily]:
        for name, help_text in self._names.items():
            family = HistogramMetricFamily(name, help_text, labels=self._label_names)
            for label_values, series in self._series.items():
                family.add_metric(label_values, *series.samples())
            yield family
