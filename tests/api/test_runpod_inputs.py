"""What a job's input means: shapes, sampling, chunk sizes, and the envelope around it."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest

from headrace.api.runpod.envelope import read_envelope
from headrace.api.runpod.growth import ChunkGrowth
from headrace.api.runpod.inputs import InputDefaults, NativeJob, RouteJob, read_input
from headrace.api.runpod.paths import is_job_path, is_runpod_path
from headrace.core.errors import BadRequest
from headrace.jobs.types import JobPolicy

DEFAULTS = InputDefaults()
MESSAGES = [{"role": "user", "content": "Hi"}]


def read(**given: Any) -> Any:
    return read_input(given, DEFAULTS)


def envelope(body: Any) -> Any:
    return read_envelope(json.dumps(body).encode(), JobPolicy())


@pytest.mark.parametrize(
    ("growth", "events", "sizes"),
    [
        (ChunkGrowth(), 100, [1, 3, 9, 27, 50, 10]),
        (ChunkGrowth(), 13, [1, 3, 9]),
        (ChunkGrowth(largest=20, smallest=4, factor=2), 40, [4, 8, 16, 12]),
        (ChunkGrowth(largest=10, smallest=2, factor=1.5), 40, [2, 3, 5, 7, 10, 10, 3]),
        (ChunkGrowth(largest=10, factor=1), 25, [10, 10, 5]),
        (ChunkGrowth(largest=5, smallest=5), 7, [5, 2]),
        (ChunkGrowth(largest=5, smallest=9, factor=2), 7, [5, 2]),
    ],
)
def test_check_18_chunk_sizes(growth: ChunkGrowth, events: int, sizes: list[int]) -> None:
    found = []
    for size in islice(growth.sizes(), 50):
        found.append(min(size, events))
        events -= found[-1]
        if events == 0:
            break
    assert found == sizes


def test_the_first_shape_that_matches_wins() -> None:
    everything = {
        "openai_input": {"messages": MESSAGES},
        "openai_route": "/v1/completions",
        "route": "/v1/models",
        "messages": MESSAGES,
        "prompt": "x",
    }
    assert read(**everything) == RouteJob(method="POST", path="/v1/completions", body={"messages": MESSAGES})
    assert read(openai_input={"messages": MESSAGES}).path == "/v1/chat/completions"
    assert read(openai_input={}, openai_route="v1/models", messages=MESSAGES) == RouteJob(
        method="GET", path="/v1/models", body=None
    )
    assert read(route="/v1/models", messages=MESSAGES) == RouteJob(method="GET", path="/v1/models", body=None)
    assert read(route="/tokenize", body={"prompt": "x"}).method == "POST"
    assert read(route="/v1/models", method="get").method == "GET"
    assert read(messages=MESSAGES, prompt="x").prompt == MESSAGES
    assert read(prompt="x").prompt == "x"
    assert read(prompt="x", apply_chat_template=True).prompt == [{"role": "user", "content": "x"}]
    with pytest.raises(BadRequest, match="messages, prompt, openai_input"):
        read(max_tokens=3)


def test_defaults_are_the_documented_ones() -> None:
    job = read(prompt="x")
    assert isinstance(job, NativeJob)
    assert (job.sampling.max_tokens, job.sampling.temperature, job.sampling.top_p) == (16, 1.0, 1.0)
    assert job.growth is None
    assert read(prompt="x", stream=True).growth == ChunkGrowth()
    assert read(prompt="x", sampling_params={"max_tokens": None, "stop": None}).sampling == job.sampling


def test_sampling_values_are_read_by_name() -> None:
    values = {"temperature": 0.5, "top_k": -1, "stop": "x", "logit_bias": {"5": 1.5}, "truncate_prompt_tokens": 3}
    job = read(prompt="x", sampling_params=values)
    assert (job.sampling.temperature, job.sampling.stop_strings) == (0.5, ("x",))
    assert job.sampling.logit_bias == {5: 1.5}
    assert job.truncate_prompt_tokens == 3
    assert read(prompt="x", max_tokens=7).sampling.max_tokens == 7
    assert read(prompt="x", max_tokens=7, sampling_params={"max_tokens": 8}).sampling.max_tokens == 8


def test_streaming_values_are_found_in_either_place() -> None:
    nested = {"stream": True, "max_batch_size": 9, "min_batch_size": 2}
    assert read(prompt="x", sampling_params=nested).growth == ChunkGrowth(largest=9, smallest=2)
    assert read(prompt="x", stream=False, sampling_params=nested).growth is None
    assert read(prompt="x", max_batch_size=4, sampling_params=nested).growth.largest == 4
    zeros = {"min_batch_size": 0, "max_batch_size": None, "batch_size_growth_factor": 0}
    assert read(prompt="x", stream=True, **zeros).growth == ChunkGrowth()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("min_batch_size", -1),
        ("max_batch_size", 1.5),
        ("max_batch_size", "9"),
        ("batch_size_growth_factor", -2),
        ("batch_size_growth_factor", "3"),
        ("stream", "yes"),
        ("apply_chat_template", 1),
        ("use_openai_format", "no"),
        ("prompt", ["x"]),
        ("messages", []),
        ("messages", ["Hi"]),
        ("messages", [{"content": "Hi"}]),
        ("sampling_params", []),
        ("route", 3),
        ("openai_route", {}),
        ("openai_input", "text"),
    ],
)
def test_what_makes_no_sense_is_named(name: str, value: Any) -> None:
    given = {"prompt": "x", "stream": True, name: value}
    if value == {}:
        given |= {"openai_route": {"a": 1}}
    with pytest.raises(BadRequest, match=name):
        read_input(given, DEFAULTS)


def test_chunk_sizes_are_checked_without_a_stream_too() -> None:
    with pytest.raises(BadRequest, match="max_batch_size"):
        read(prompt="x", max_batch_size=-1)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"top_p": 2}, "top_p"),
        ({"temperature": "hot"}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"n": 2, "temperature": 0}, "n"),
        ({"detokenize": False}, "detokenize"),
        ({"nonsense": 1}, "nonsense"),
        ({"logit_bias": {"a": 1}}, "logit_bias"),
        ({"logit_bias": [1]}, "logit_bias"),
        ({"logit_bias": {"5": 10**400}}, "logit_bias"),
        ({"repetition_penalty": 10**400}, "repetition_penalty"),
        ({"stop": ""}, "stop"),
        ({"length_penalty": 2.0}, "length_penalty"),
        ({"early_stopping": True}, "early_stopping"),
        ({"n": 2, "best_of": 1}, "best_of"),
        ({"use_beam_search": True, "best_of": 1}, "best_of"),
        ({"use_beam_search": True, "best_of": 3, "temperature": 0.5}, "temperature"),
        ({"use_beam_search": True, "best_of": 3, "top_k": 5}, "top_k"),
    ],
)
def test_check_11_bad_sampling_values_are_named(values: dict[str, Any], name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        read(prompt="x", sampling_params=values)


def test_the_openai_format_of_a_native_job() -> None:
    job = read(messages=MESSAGES, sampling_params={"temperature": 0.5, "stop": None}, use_openai_format=True)
    ours = {"max_tokens": 16, "temperature": 1.0, "top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
    body = {**ours, "messages": MESSAGES, "temperature": 0.5, "stream": False}
    assert job == RouteJob(method="POST", path="/v1/chat/completions", body=body)
    job = read(prompt="x", stream=True, use_openai_format=True)
    assert (job.path, job.body) == ("/v1/completions", {**ours, "prompt": "x", "stream": True})
    job = read(messages=MESSAGES, sampling_params={"logprobs": 2}, use_openai_format=True)
    assert (job.body["logprobs"], job.body["top_logprobs"]) == (True, 2)
    assert read(prompt="x", sampling_params={"logprobs": 2}, use_openai_format=True).body["logprobs"] == 2
    with pytest.raises(BadRequest, match="top_p"):
        read(prompt="x", sampling_params={"top_p": 2}, use_openai_format=True)


def test_an_envelope_is_read_and_its_secret_dropped() -> None:
    body = {
        "input": {"prompt": "x"},
        "webhook": "https://example.org/hook",
        "policy": {"executionTimeout": 5000, "ttl": 10000, "lowPriority": True},
        "s3Config": {"accessSecret": "secret"},
        "unknown": 1,
    }
    read = envelope(body)
    assert read.input == {"prompt": "x"}
    assert read.webhook == "https://example.org/hook"
    assert read.policy == JobPolicy(execution_timeout=5000, ttl=10000, low_priority=True)
    assert "secret" not in repr(read)


def test_check_03_an_envelope_within_an_input_is_unwrapped() -> None:
    inner = {"input": {"prompt": "x"}, "policy": {"ttl": 10000}}
    assert envelope({"input": inner}).input == {"prompt": "x"}
    assert envelope({"input": inner, "webhook": "http://a.b"}).policy.ttl == 10000
    assert envelope({"input": inner, "webhook": "http://a.b"}).webhook == "http://a.b"
    mixed = {"input": "text of a worker of its own", "prompt": "x"}
    assert envelope({"input": mixed}).input == mixed


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ([], "object"),
        ({}, "input"),
        ({"input": {}}, "input"),
        ({"input": "x"}, "input"),
        ({"input": None}, "input"),
        ({"input": {"input": {}}}, "input"),
        ({"input": {"a": 1}, "webhook": 3}, "webhook"),
        ({"input": {"a": 1}, "webhook": "http://a\0b"}, "webhook"),
        ({"input": {"a": 1}, "policy": []}, "policy"),
        ({"input": {"a": 1}, "policy": {"ttl": 9999}}, r"policy\.ttl"),
        ({"input": {"a": 1}, "policy": {"ttl": 604_800_001}}, r"policy\.ttl"),
        ({"input": {"a": 1}, "policy": {"executionTimeout": 4999}}, r"policy\.executionTimeout"),
        ({"input": {"a": 1}, "policy": {"executionTimeout": "5000"}}, r"policy\.executionTimeout"),
        ({"input": {"a": 1}, "policy": {"lowPriority": 1}}, r"policy\.lowPriority"),
    ],
)
def test_check_04_bad_envelopes_are_refused(body: Any, name: str) -> None:
    with pytest.raises(BadRequest, match=name):
        envelope(body)


@pytest.mark.parametrize(
    "raw",
    [
        b'{"input": {',
        b'{"input": {"prompt": "\xff"}}',
        b'{"input": {"prompt": "\\ud800"}}',
        b'{"input": {"temperature": NaN}}',
        b'{"input": {"temperature": 1e400}}',
        b'{"input": {"seed": ' + b"9" * 5000 + b"}}",
        b'{"input": {"a": ' + b"[" * 100_000 + b"]" * 100_000 + b"}}",
    ],
)
def test_check_04_broken_json_is_refused(raw: bytes) -> None:
    with pytest.raises(BadRequest, match="not JSON"):
        read_envelope(raw, JobPolicy())


def test_whose_path_it_is() -> None:
    jobs = ["/v2/ep/run", "/run", "/runsync", "/status/x", "/stream/x", "/purge-queue", "/v2/ep/nonsense", "/v2/"]
    assert all(is_job_path(path) and is_runpod_path(path) for path in jobs)
    direct = ["/v2/ep/openai/v1/models", "/openai/v1/models"]
    assert all(is_runpod_path(path) and not is_job_path(path) for path in direct)
    others = ["/health", "/v1/models", "/running", "/", "/statuses/x", "/v2"]
    assert not any(is_runpod_path(path) for path in others)
