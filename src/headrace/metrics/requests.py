"""What became of the requests. The methods are the service's `RequestObserver`."""

from __future__ import annotations

from typing import Protocol

from prometheus_client import Counter, Histogram

from headrace.core.request import FinishReason
from headrace.metrics import buckets
from headrace.metrics.family import EngineFamily

_LONGEST = 200_000


class RequestRecord(Protocol):
    """A request that has ended, as the service's `FinishedRequest` describes it."""

    @property
    def n(self) -> int: ...
    @property
    def max_tokens(self) -> int | None: ...
    @property
    def prompt_tokens(self) -> int: ...
    @property
    def cached_tokens(self) -> int: ...
    @property
    def generation_tokens(self) -> tuple[int, ...]: ...
    @property
    def finish_reasons(self) -> tuple[FinishReason, ...]: ...
    @property
    def queue(self) -> float | None: ...
    @property
    def prefill(self) -> float | None: ...
    @property
    def decode(self) -> float | None: ...
    @property
    def inference(self) -> float | None: ...
    @property
    def e2e(self) -> float: ...
    @property
    def time_per_output_token(self) -> float | None: ...


class PooledRecord(Protocol):
    """A request to a model that pools, as the service's `PooledRequest` describes it."""

    @property
    def prompt_tokens(self) -> tuple[int, ...]: ...
    @property
    def finish_reason(self) -> FinishReason: ...
    @property
    def queue(self) -> float | None: ...
    @property
    def inference(self) -> float | None: ...
    @property
    def e2e(self) -> float: ...


class RequestMetrics:
    """Histograms of latencies and sizes, counters of endings. A choice counts as a finished request of its own."""

    def __init__(self, family: EngineFamily) -> None:
        sizes = buckets.token_counts(_LONGEST)
        self._finished = _finished_by_reason(family)
        self._rejections = family.counters_by(
            "admission_rejections", "Requests answered 503.", ("model_name", "reason")
        )
        self._model_name = family.labels["model_name"]
        self._first_token = family.histogram(
            "time_to_first_token_seconds", "From arrival to the first token.", buckets.FIRST_TOKEN
        )
        self._between_tokens = family.intervals(
            {
                "inter_token_latency_seconds": "Between two tokens of a choice.",
                "time_per_output_token_seconds": "Older name of inter_token_latency.",
            },
            buckets.BETWEEN_TOKENS,
        )
        self._mean_between_tokens = family.histogram(
            "request_time_per_output_token_seconds", "Mean between two tokens of a request.", buckets.BETWEEN_TOKENS
        )
        self._e2e = _phase(family, "e2e_request_latency_seconds", "From arrival to the end.")
        self._queue = _phase(family, "request_queue_time_seconds", "From arrival to the first step.")
        self._prefill = _phase(family, "request_prefill_time_seconds", "From the first step to the first token.")
        self._decode = _phase(family, "request_decode_time_seconds", "From the first token to the last.")
        self._inference = _phase(family, "request_inference_time_seconds", "From the first step to the last token.")
        self._prompt = family.histogram("request_prompt_tokens", "Prompt tokens of a request.", sizes)
        self._computed = family.histogram(
            "request_prefill_kv_computed_tokens", "Prompt tokens of a request that were not cached.", sizes
        )
        self._generated = family.histogram("request_generation_tokens", "Output tokens of a choice.", sizes)
        self._most_generated = family.histogram(
            "request_max_num_generation_tokens", "Output tokens of a request's longest choice.", sizes
        )
        self._max_tokens = family.histogram("request_params_max_tokens", "max_tokens as asked for.", sizes)
        self._n = family.histogram("request_params_n", "n as asked for.", buckets.CHOICES)

    def first_token(self, seconds: float) -> None:
        self._first_token.observe(seconds)

    def inter_token(self, seconds: float, tokens: int) -> None:
        """Tokens that came together share the time since the ones before them."""
        self._between_tokens.observe(seconds / tokens, tokens)

    def request_finished(self, request: RequestRecord) -> None:
        for reason in request.finish_reasons:
            self._finished[reason].inc()
        for count in request.generation_tokens:
            self._generated.observe(count)
        self._most_generated.observe(max(request.generation_tokens, default=0))
        self._prompt.observe(request.prompt_tokens)
        self._computed.observe(request.prompt_tokens - request.cached_tokens)
        self._n.observe(request.n)
        self._e2e.observe(request.e2e)
        for histogram, value in (
            (self._max_tokens, request.max_tokens),
            (self._queue, request.queue),
            (self._prefill, request.prefill),
            (self._decode, request.decode),
            (self._inference, request.inference),
            (self._mean_between_tokens, request.time_per_output_token),
        ):
            if value is not None:
                histogram.observe(value)

    def request_pooled(self, request: PooledRecord) -> None:
        """Every input counts as a finished request; the times are those of all of them together."""
        self._finished[request.finish_reason].inc(len(request.prompt_tokens))
        for tokens in request.prompt_tokens:
            self._prompt.observe(tokens)
        self._e2e.observe(request.e2e)
        for histogram, value in ((self._queue, request.queue), (self._inference, request.inference)):
            if value is not None:
                histogram.observe(value)

    def request_rejected(self, reason: str) -> None:
        self._rejections.labels(model_name=self._model_name, reason=reason).inc()


def _phase(family: EngineFamily, name: str, help_text: str) -> Histogram:
    return family.histogram(name, help_text, buckets.WHOLE_REQUEST)


def _finished_by_reason(family: EngineFamily) -> dict[FinishReason, Counter]:
    """All series exist from the start, at zero."""
    counters = family.counters("request_success", "Choices that have ended, by how.", "finished_reason")
    return {reason: counters.labels(**family.labels, finished_reason=reason.value) for reason in FinishReason}
