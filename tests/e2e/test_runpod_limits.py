"""The acceptance list of the job API: keys, full queues, limits and clocks, at servers with short settings."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import requests
import runpod
from job_calls import JobCalls, endless, native


@pytest.fixture(scope="module")
def small_server(
    smollm2_path: Path, start_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    """Keys, one job at a time, three that wait, and results that are forgotten after two seconds."""
    folder = tmp_path_factory.mktemp("jobs")
    keys = ("--api-key", "first", "second")
    limits = ("--max-running-jobs", "1", "--max-queued-jobs", "3", "--job-retention", "2")
    rates = ("--job-concurrency-limits", '{"status": 1}', "--job-rate-limits", '{"purge-queue": 2}')
    with start_server(
        str(smollm2_path), *keys, *limits, *rates, "--max-model-len", "2048", "--jobs-dir", str(folder)
    ) as server:
        yield server


@pytest.fixture
def calls(small_server) -> Iterator[JobCalls]:
    calls = JobCalls(small_server.url, key="first")
    yield calls
    calls.close()


@pytest.fixture
def endpoint(small_server, monkeypatch: pytest.MonkeyPatch) -> runpod.Endpoint:
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{small_server.url}/v2")
    return runpod.Endpoint("default", api_key="first")


@pytest.fixture
def full(calls: JobCalls) -> Iterator[list[str]]:
    """One endless job that runs and three that wait."""
    ids = [calls.run(endless())]
    calls.begun(ids[0])
    ids += [calls.run(native()) for _ in range(3)]
    yield ids
    for job_id in ids:
        calls.cancel(job_id)


def test_check_05_keys(small_server, calls: JobCalls, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{small_server.url}/v2")
    with pytest.raises(RuntimeError, match=r"^401"):
        runpod.Endpoint("default", api_key="wrong").run({"prompt": "x"})
    job_id = calls.run(native())
    for header in ("Bearer first", "first", "bearer first"):
        for path in (f"/v2/default/status/{job_id}", f"/status/{job_id}", "/openai/v1/models"):
            assert httpx.get(small_server.url + path, headers={"Authorization": header}).status_code == 200
    for headers in ({}, {"Authorization": "wrong"}, {"Authorization": "Basic first"}, {"Authorization": ""}):
        for path in (f"/v2/default/status/{job_id}", f"/status/{job_id}", "/v2/default/health", "/v2//default/health"):
            refused = httpx.get(small_server.url + path, headers=headers)
            assert (refused.status_code, refused.json()) == (401, {"error": "The API key is missing or wrong."})
    direct = f"{small_server.url}/v2/default/openai/v1"
    with openai.OpenAI(base_url=direct, api_key="wrong") as client, pytest.raises(openai.AuthenticationError):
        client.models.list()


def test_a_job_is_seen_by_its_own_key_only(small_server, calls: JobCalls) -> None:
    others = JobCalls(small_server.url, key="second")
    job_id = calls.run(endless())
    for method, path in (("GET", "status"), ("GET", "stream"), ("POST", "cancel"), ("POST", "retry")):
        assert others.http.request(method, f"/{path}/{job_id}").status_code == 404
    assert others.get("/jobs")["jobs"] == []
    calls.cancel(job_id)
    others.close()


def test_check_31_a_full_queue(calls: JobCalls, endpoint, full: list[str]) -> None:
    refused = calls.http.post("/run", json={"input": native()})
    assert (refused.status_code, list(refused.json())) == (429, ["error"])
    assert int(refused.headers["Retry-After"]) >= 1
    began = time.monotonic()
    with pytest.raises(requests.HTTPError, match="429"):
        endpoint.run({"input": native()})
    assert time.monotonic() - began < 2
    assert calls.get("/health")["jobs"]["inQueue"] == 3


def test_check_31_gets_back_off_and_recover(calls: JobCalls, endpoint, full: list[str]) -> None:
    waiting = threading.Thread(target=calls.get, args=(f"/status-sync/{full[1]}",), kwargs={"wait": 1500})
    waiting.start()
    until = time.monotonic() + 1
    while (refused := calls.http.get(f"/status/{full[0]}")).status_code == 200:  # until the other call is in
        assert time.monotonic() < until
    assert (refused.status_code, refused.headers["Retry-After"]) == (429, "1")
    began = time.monotonic()
    job = runpod.endpoint.Job("default", full[0], endpoint.rp_client)
    assert job.status() == "IN_PROGRESS"
    assert 1 <= time.monotonic() - began < 10
    waiting.join()


def test_a_rate_limit(calls: JobCalls) -> None:
    answers = [calls.http.post("/purge-queue") for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    assert 1 <= int(answers[-1].headers["Retry-After"]) <= 10


def test_check_29_check_30_clocks(calls: JobCalls, endpoint) -> None:
    """Both at once, as each takes seconds: a job that runs too long, and one that waits too long behind another."""
    began = time.monotonic()
    running = endpoint.run({"input": endless(), "policy": {"executionTimeout": 5000}})
    calls.begun(running.job_id)
    blocking = calls.run(endless())
    waiting = endpoint.run({"input": native(), "policy": {"ttl": 10000}})
    timed_out = calls.ended(running.job_id)
    assert 5 <= time.monotonic() - began < 8
    assert (timed_out["status"], timed_out["error"]) == ("TIMED_OUT", "executionTimeout exceeded")
    assert 5000 <= timed_out["executionTime"] < 6500
    calls.begun(blocking)  # the engine has room again
    last = calls.poll(running.job_id)
    assert (last["status"], last["error"]) == ("TIMED_OUT", "executionTimeout exceeded")
    expired = calls.ended(waiting.job_id)
    assert 10 <= time.monotonic() - began < 12.5
    assert (expired["status"], expired["error"]) == ("TIMED_OUT", "job TTL expired")
    assert waiting.output(timeout=5) is None
    until = time.monotonic() + 6
    while calls.http.get(f"/status/{waiting.job_id}").status_code != 404:
        assert time.monotonic() < until
        time.sleep(0.1)
    for path in ("/retry", "/cancel"):
        assert calls.http.post(f"{path}/{waiting.job_id}").status_code == 404
    calls.cancel(blocking)
