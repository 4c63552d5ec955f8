"""Declares metrics that carry the labels of every engine metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from headrace.metrics.intervals import Intervals

PREFIX = "vllm:"
"""The names are those of vLLM wherever the meaning is equal, so that dashboards keep working."""

ENGINE = "0"


class EngineFamily:
    """Metrics labelled with the model's name and the engine's number, in `registry`; with None, in none."""

    def __init__(self, registry: CollectorRegistry | None, model_name: str) -> None:
        self.registry = registry
        self.labels = {"model_name": model_name, "engine": ENGINE}

    def counter(self, name: str, help_text: str) -> Counter:
        return self.counters(name, help_text).labels(**self.labels)

    def counters(self, name: str, help_text: str, *extra: str) -> Counter:
        return Counter(PREFIX + name, help_text, [*self.labels, *extra], registry=self.registry)

    def gauge(self, name: str, help_text: str) -> Gauge:
        return self.gauges(name, help_text).labels(**self.labels)

    def gauges(self, name: str, help_text: str, *extra: str) -> Gauge:
        return Gauge(PREFIX + name, help_text, [*self.labels, *extra], registry=self.registry)

    def histogram(self, name: str, help_text: str, buckets: Sequence[float]) -> Histogram:
        family = Histogram(PREFIX + name, help_text, list(self.labels), buckets=buckets, registry=self.registry)
        return family.labels(**self.labels)

    def intervals(self, help_texts: Mapping[str, str], borders: Sequence[float]) -> Intervals:
        """One histogram under each of these names."""
        names = {PREFIX + name: text for name, text in help_texts.items()}
        intervals = Intervals(names, self.labels, borders)
        if self.registry is not None:
            self.registry.register(intervals)
        return intervals
