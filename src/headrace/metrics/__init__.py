"""Counters, gauges and histograms for Prometheus."""

from headrace.metrics.http import CountRequests, HttpMetrics
from headrace.metrics.server import Metrics, ModelMetrics

__all__ = ["CountRequests", "HttpMetrics", "Metrics", "ModelMetrics"]
