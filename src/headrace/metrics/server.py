"""All metrics of one server, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from headrace.core.request import EngineInfo, StepStats
from headrace.metrics.family import EngineFamily
from headrace.metrics.http import HttpMetrics
from headrace.metrics.requests import RequestMetrics, RequestRecord
from headrace.metrics.steps import StepMetrics


class Metrics:
    """Counts steps (a `StatsListener`), requests (a `RequestObserver`) and HTTP; `render` shows it all.

    `model_name` is the first served name. Without `engine_metrics` nothing under `vllm:` is shown.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, model_name: str, *, engine_metrics: bool = True) -> None:
        self._registry = CollectorRegistry()
        family = EngineFamily(self._registry if engine_metrics else None, model_name)
        self._steps = StepMetrics(family)
        self._requests = RequestMetrics(family)
        self.http = HttpMetrics(self._registry)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def engine_loaded(self, info: EngineInfo) -> None:
        self._steps.engine_loaded(info)

    def on_step(self, stats: StepStats) -> None:
        self._steps.on_step(stats)

    def first_token(self, seconds: float) -> None:
        self._requests.first_token(seconds)

    def inter_token(self, seconds: float, tokens: int) -> None:
        self._requests.inter_token(seconds, tokens)

    def request_finished(self, request: RequestRecord) -> None:
        self._requests.request_finished(request)

    def request_rejected(self, reason: str) -> None:
        self._requests.request_rejected(reason)

    def render(self) -> bytes:
        """Prometheus' text format, of the type `content_type`."""
        return generate_latest(self._registry)
