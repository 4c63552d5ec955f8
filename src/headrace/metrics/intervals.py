"""The one histogram that is fed once a token."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client.core import HistogramMetricFamily
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString


class Intervals(Collector):
    """A histogram shown under several names, each with its help text in `names`; for one thread.

    Prometheus' own takes a lock and walks its buckets at every observation, and that under each name: a sixth of all
    that the API process does for a token.
    """

    def __init__(self, names: Mapping[str, str], labels: Mapping[str, str], borders: Sequence[float]) -> None:
        self._names = names
        self._labels = labels
        self._borders = borders
        self._counts = [0] * (len(borders) + 1)
        self._sum = 0.0

    def observe(self, seconds: float, count: int) -> None:
        """`count` intervals of `seconds` each."""
        self._counts[bisect_left(self._borders, seconds)] += count
        self._sum += seconds * count

    def collect(self) -> Iterator[HistogramMetricFamily]:
        uppers = [*map(floatToGoString, self._borders), "+Inf"]
        buckets = list(zip(uppers, accumulate(self._counts), strict=True))
        for name, help_text in self._names.items():
            family = HistogramMetricFamily(name, help_text, labels=list(self._labels))
            family.add_metric(list(self._labels.values()), buckets, self._sum)
            yield family
