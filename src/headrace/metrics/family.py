"""Declares metrics that carry the labels of every engine metric."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headrace.metrics.intervals import Intervals, IntervalSeries

PREFIX = "vllm:"
"""The names are those of vLLM wherever the meaning is equal, so that dashboards keep working."""

ENGINE = "0"

M = TypeVar("M")


class Declared:
    """Metrics by name, each declared once in `registry`, or with None in none, for whichever model asks first."""

    def __init__(self, registry: CollectorRegistry | None) -> None:
        self.registry = registry
        self._metrics: dict[str, Any] = {}

    def once(self, name: str, declare: Callable[[], M]) -> M:
        """The metric of this name; `declare` makes it."""
        if name not in self._metrics:
            self._metrics[name] = declare()
        metric: M = self._metrics[name]
        return metric


class EngineFamily:
    """Metrics labelled with the model's name and the engine's number."""

    def __init__(self, declared: Declared, model_name: str) -> None:
        self.labels = {"model_name": model_name, "engine": ENGINE}
        self._declared = declared

    def counter(self, name: str, help_text: str) -> Counter:
        return self.counters(name, help_text).labels(**self.labels)

    def counters(self, name: str, help_text: str, *extra: str) -> Counter:
        return self.counters_by(name, help_text, (*self.labels, *extra))

    def counters_by(self, name: str, help_text: str, labels: Sequence[str]) -> Counter:
        """A counter with just these labels."""
        registry = self._declared.registry
        return self._declared.once(name, lambda: Counter(PREFIX + name, help_text, labels, registry=registry))

    def gauge(self, name: str, help_text: str) -> Gauge:
        return self.gauges(name, help_text).labels(**self.labels)

    def gauges(self, name: str, help_text: str, *extra: str) -> Gauge:
        labels, registry = (*self.labels, *extra), self._declared.registry
        return self._declared.once(name, lambda: Gauge(PREFIX + name, help_text, labels, registry=registry))

    def histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> Histogram:
        labels, registry = tuple(self.labels), self._declared.registry
        family = self._declared.once(
            name, lambda: Histogram(PREFIX + name, help_text, labels, buckets=buckets, registry=registry)
        )
        return family.labels(**self.labels)

    def intervals(self, help_texts: Mapping[str, str], borders: Sequence[float]) -> IntervalSeries:
        """One histogram under each of these names."""

        def declare() -> Intervals:
            names = {PREFIX + name: text for name, text in help_texts.items()}
            intervals = Intervals(names, tuple(self.labels), borders)
            if self._declared.registry is not None:
                self._declared.registry.register(intervals)
            return intervals

        return self._declared.once(next(iter(help_texts)), declare).series(tuple(self.labels.values()))
