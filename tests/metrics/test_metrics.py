"""Names, labels and values as a dashboard reads them."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.core.request import EngineInfo, FinishReason, StepStats
from headrace.metrics import CountRequests, Metrics, ModelMetrics
from headrace.metrics.buckets import token_counts
from headrace.service import FinishedRequest

ENGINE_LABELS = {"model_name": "smol", "engine": "0"}
FACTS = {"architecture": "x", "vocab_size": 1, "max_model_len": 2, "dtype": "f", "device": "cpu", "kernels": "k"}


def value(metrics: Metrics, name: str, **labels: str) -> float:
    """The one sample of this name that has these labels."""
    found = [
        sample.value
        for family in text_string_to_metric_families(metrics.render().decode())
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    ]
    assert len(found) == 1, f"{name} {labels}: {found}"
    return found[0]


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def model(metrics: Metrics) -> ModelMetrics:
    return metrics.model("smol")


def finished(**changes: object) -> FinishedRequest:
    values = {
        "n": 2,
        "max_tokens": 9,
        "prompt_tokens": 10,
        "cached_tokens": 4,
        "generation_tokens": (3, 5),
        "finish_reasons": (FinishReason.STOP, FinishReason.LENGTH),
        "queue": 1.0,
        "prefill": 2.0,
        "decode": 4.0,
        "inference": 6.0,
        "e2e": 7.0,
    }
    return FinishedRequest(**{**values, **changes})


def test_gauges_follow_and_counters_add(metrics, model):
    for running in (2, 1):
        model.on_step(
            StepStats(
                running=running,
                waiting=4,
                kv_usage=0.5,
                prompt_tokens=7,
                generation_tokens=3,
                prefix_queries=16,
                prefix_hits=16,
                preemptions=1,
            )
        )
    expected = {
        "vllm:num_requests_running": 1,
        "vllm:num_requests_waiting": 4,
        "vllm:num_requests_waiting_by_reason": 4,
        "vllm:kv_cache_usage_perc": 0.5,
        "vllm:gpu_cache_usage_perc": 0.5,
        "vllm:prompt_tokens_total": 46,
        "vllm:prompt_tokens_cached_total": 32,
        "vllm:generation_tokens_total": 6,
        "vllm:prefix_cache_queries_total": 32,
        "vllm:prefix_cache_hits_total": 32,
        "vllm:num_preemptions_total": 2,
        "vllm:iteration_tokens_total_sum": 20,
    }
    assert {name: value(metrics, name, **ENGINE_LABELS) for name in expected} == expected
    sources = {
        source: value(metrics, "vllm:prompt_tokens_by_source_total", source=source)
        for source in ("local_compute", "local_cache_hit")
    }
    assert sources == {"local_compute": 14, "local_cache_hit": 32}


def test_requests_are_measured(metrics, model):
    model.first_token(0.03)
    model.inter_token(0.6, 3)
    model.request_finished(finished())
    expected = {
        "vllm:time_to_first_token_seconds_sum": 0.03,
        "vllm:inter_token_latency_seconds_count": 3,
        "vllm:inter_token_latency_seconds_sum": 0.6,
        "vllm:time_per_output_token_seconds_count": 3,
        "vllm:request_time_per_output_token_seconds_sum": 1.0,
        "vllm:e2e_request_latency_seconds_sum": 7,
        "vllm:request_queue_time_seconds_sum": 1,
        "vllm:request_prefill_time_seconds_sum": 2,
        "vllm:request_decode_time_seconds_sum": 4,
        "vllm:request_inference_time_seconds_sum": 6,
        "vllm:request_prompt_tokens_sum": 10,
        "vllm:request_prefill_kv_computed_tokens_sum": 6,
        "vllm:request_generation_tokens_count": 2,
        "vllm:request_generation_tokens_sum": 8,
        "vllm:request_max_num_generation_tokens_sum": 5,
        "vllm:request_params_max_tokens_sum": 9,
        "vllm:request_params_n_sum": 2,
    }
    assert {name: value(metrics, name, **ENGINE_LABELS) for name in expected} == pytest.approx(expected)
    endings = {
        reason: value(metrics, "vllm:request_success_total", finished_reason=reason)
        for reason in ("stop", "length", "abort", "error")
    }
    assert endings == {"stop": 1, "length": 1, "abort": 0, "error": 0}


def test_phases_that_a_request_never_reached_are_left_out(metrics, model):
    model.request_finished(
        finished(max_tokens=None, generation_tokens=(0,), queue=None, prefill=None, decode=None, inference=None)
    )
    for name in ("request_queue_time_seconds", "request_decode_time_seconds", "request_params_max_tokens"):
        assert value(metrics, f"vllm:{name}_count") == 0
    assert value(metrics, "vllm:e2e_request_latency_seconds_count") == 1


def test_rejections(metrics, model):
    model.request_rejected("max_num_queued_reqs")
    assert value(metrics, "vllm:admission_rejections_total", reason="max_num_queued_reqs", model_name="smol") == 1


def test_shape_of_the_cache(metrics, model):
    for blocks in (4, 8):  # an engine that was started again may have another shape
        model.engine_loaded(EngineInfo(**FACTS, block_size=16, num_blocks=blocks, load_seconds=1.0))
    assert value(metrics, "vllm:cache_config_info", block_size="16") == 1
    assert value(metrics, "vllm:cache_config_info", num_gpu_blocks="8") == 1


def test_without_engine_metrics_only_the_others_are_shown():
    metrics = Metrics(engine_metrics=False)
    model = metrics.model("smol")
    model.on_step(StepStats(running=1))
    model.request_finished(finished())
    text = metrics.render().decode()
    assert "vllm:" not in text
    assert "process_resident_memory_bytes" in text
    assert "python_info" in text


def test_servers_count_apart():
    one, other = Metrics(), Metrics()
    one.model("smol").on_step(StepStats(running=3))
    other.model("smol")
    assert value(one, "vllm:num_requests_running") == 3
    assert value(other, "vllm:num_requests_running") == 0


def test_models_count_apart(metrics, model):
    other = metrics.model("minilm")
    model.on_step(StepStats(running=3, generation_tokens=2))
    for one, seconds in ((model, 0.5), (other, 0.25)):
        one.inter_token(seconds, 1)
        one.request_rejected("max_num_queued_reqs")
        one.engine_loaded(EngineInfo(**FACTS, block_size=16, num_blocks=4, load_seconds=1.0))
    expected = {
        "vllm:num_requests_running": (3, 0),
        "vllm:generation_tokens_total": (2, 0),
        "vllm:inter_token_latency_seconds_sum": (0.5, 0.25),
        "vllm:admission_rejections_total": (1, 1),
        "vllm:cache_config_info": (1, 1),
    }
    found = {
        name: tuple(value(metrics, name, model_name=model_name) for model_name in ("smol", "minilm"))
        for name in expected
    }
    assert found == expected


def test_token_count_borders():
    assert token_counts(1) == (1,)
    assert token_counts(120) == (1, 2, 5, 10, 20, 50, 100)


def count(metrics: Metrics, method: str, handler: str | None, *, fails: bool = False) -> None:
    async def app(scope, receive, send):
        if fails:
            raise RuntimeError
        await send({"type": "http.response.start", "status": 201, "headers": []})
        await send({"type": "http.response.body", "body": b"abc", "more_body": True})
        await send({"type": "http.response.body", "body": b"de"})

    async def send(message):
        pass

    scope = {"type": "http", "method": method, "headers": [(b"content-length", b"17")]}
    asyncio.run(CountRequests(app, metrics.http, lambda _: handler)(scope, None, send))


def test_http_requests(metrics):
    count(metrics, "POST", "/v1/completions")
    assert value(metrics, "http_requests_total", handler="/v1/completions", method="POST", status="2xx") == 1
    assert value(metrics, "http_request_duration_seconds_count", handler="/v1/completions", method="POST") == 1
    assert value(metrics, "http_request_duration_highr_seconds_count") == 1
    assert value(metrics, "http_request_size_bytes_sum", handler="/v1/completions") == 17
    assert value(metrics, "http_response_size_bytes_sum", handler="/v1/completions") == 5


def test_http_requests_that_break_count_as_500(metrics):
    with pytest.raises(RuntimeError):
        count(metrics, "POST", "/x", fails=True)
    assert value(metrics, "http_requests_total", handler="/x", status="5xx") == 1


def test_labels_of_http_requests_are_bounded(metrics):
    for method in ("BREW", "WHEN"):
        count(metrics, method, None)
    count(metrics, "GET", "/health")
    assert value(metrics, "http_requests_total") == 2
    assert value(metrics, "http_requests_total", handler="none", method="OTHER") == 2
