"""HTTP requests and responses, counted by a pure ASGI middleware."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, Summary

from headrace.metrics import buckets

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

NO_HANDLER = "none"
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
PROBES = frozenset({"/metrics", "/health", "/load", "/ping", "/version"})
"""Handlers that are not counted: they say nothing of what users do."""


class HttpMetrics:
    """The series. `handler` is a route's path, `status` its class (`2xx`)."""

    def __init__(self, registry: CollectorRegistry) -> None:
        by_handler = ["handler", "method"]
        self._requests = Counter(
            "http_requests", "Requests answered.", ["handler", "method", "status"], registry=registry
        )
        self._seconds = Histogram(
            "http_request_duration_seconds",
            "To the end of the answer.",
            by_handler,
            buckets=buckets.HTTP_SECONDS,
            registry=registry,
        )
        self._seconds_fine = Histogram(
            "http_request_duration_highr_seconds",
            "To the end of the answer, all handlers together.",
            buckets=buckets.HTTP_SECONDS_FINE,
            registry=registry,
        )
        self._request_size = Summary("http_request_size_bytes", "Declared length.", ["handler"], registry=registry)
        self._response_size = Summary("http_response_size_bytes", "Bytes sent.", ["handler"], registry=registry)

    def answered(
        self, handler: str, method: str, status: int, seconds: float, request_size: int, response_size: int
    ) -> None:
        if handler in PROBES:
            return
        if method not in METHODS:  # callers may invent any, and every label value is kept for good
            method = "OTHER"
        self._requests.labels(handler=handler, method=method, status=f"{status // 100}xx").inc()
        self._seconds.labels(handler=handler, method=method).observe(seconds)
        self._seconds_fine.observe(seconds)
        self._request_size.labels(handler=handler).observe(request_size)
        self._response_size.labels(handler=handler).observe(response_size)


class CountRequests:
    """The middleware. `handler_of` names the route of a scope that has been routed, None where there was none."""

    def __init__(self, app: App, metrics: HttpMetrics, handler_of: Callable[[Scope], str | None]) -> None:
        self._app = app
        self._metrics = metrics
        self._handler_of = handler_of

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status, size = 500, 0

        async def counted(message: Message) -> None:
            nonlocal status, size
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counted)
        finally:
            handler = self._handler_of(scope) or NO_HANDLER
            seconds = time.perf_counter() - began
            self._metrics.answered(handler, scope["method"], status, seconds, _declared_length(scope), size)


def _declared_length(scope: Scope) -> int:
    for name, value in scope["headers"]:
        if name == b"content-length" and value.isdigit():
            return int(value)
    return 0
