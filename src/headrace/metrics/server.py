"""All metrics of one server, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.exposition import generate_latest

from headrace.core.request import EngineInfo, StepStats
from headrace.metrics.family import Declared, EngineFamily
from headrace.metrics.http import HttpMetrics
from headrace.metrics.requests import PooledRecord, RequestMetrics, RequestRecord
from headrace.metrics.steps import StepMetrics


class ModelMetrics:
    """Those of one model: counts its steps (a `StatsListener`) and its requests (a `RequestObserver`)."""

    def __init__(self, family: EngineFamily) -> None:
        self._steps = StepMetrics(family)
        self._requests = RequestMetrics(family)

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

    def request_pooled(self, request: PooledRecord) -> None:
        self._requests.request_pooled(request)

    def request_rejected(self, reason: str) -> None:
        self._requests.request_rejected(reason)


class Metrics:
    """Counts HTTP requests, and what each model does; `render` shows it all.

    Without `engine_metrics` nothing under `vllm:` is shown.
    """

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, *, engine_metrics: bool = True) -> None:
        self._registry = CollectorRegistry()
        self._declared = Declared(self._registry if engine_metrics else None)
        self.http = HttpMetrics(self._registry)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)

    def model(self, name: str) -> ModelMetrics:
        """The metrics of a model, all of them zero. `name`: the first of its names, which labels them."""
        return ModelMetrics(EngineFamily(self._declared, name))

    def render(self) -> bytes:
        """Prometheus' text format, of the type `content_type`."""
        return generate_latest(self._registry)
