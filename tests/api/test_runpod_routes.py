"""The job routes over a scripted engine and a real job queue: what needs no model, or none yet."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import Request

from headrace.api.app import create_app
from headrace.api.runpod import routes
from headrace.api.runpod.endpoints import Endpoints
from headrace.api.runpod.errors import RateLimited
from headrace.api.runpod.executor import job_executor
from headrace.api.runpod.limits import RateLimits
from headrace.api.runpod.stream import wants_lines
from headrace.api.runpod.wire import health, webhook_body
from headrace.config.jobs import JobsConfig
from headrace.config.knobs import build
from headrace.config.runpod import RunpodConfig
from headrace.config.sections import ModelConfig, ServeConfig
from headrace.core.errors import ConfigError, NotFound
from headrace.jobs import JobCounts, JobService, StoreUnavailable
from headrace.service import EngineState

Work = Callable[[httpx.AsyncClient, JobService], Awaitable[Any]]


@pytest.fixture
def with_jobs(make_app, tmp_path: Path) -> Callable[..., Any]:
    """Run `work(client, jobs)` against an app with a job queue; its flags are given by field name."""

    @asynccontextmanager
    async def running(app: Any, values: dict[str, Any]) -> AsyncIterator[tuple[httpx.AsyncClient, JobService]]:
        config = build(values)
        jobs = JobService(JobsConfig(jobs_dir=tmp_path), endpoints=("default",), render_webhook=webhook_body)
        await jobs.start()
        try:
            if app.services.healthy:
                jobs.open(job_executor(app.services, config).execute)
            transport = httpx.ASGITransport(create_app(app.services, config, jobs.queue))
            async with httpx.AsyncClient(transport=transport, base_url="http://headrace") as client:
                yield client, jobs
        finally:
            await jobs.stop(0)

    def run(work: Work, app: Any = None, **values: Any) -> Any:
        async def main() -> Any:
            async with running(app or make_app(), values) as (client, jobs):
                return await asyncio.wait_for(work(client, jobs), 30)

        return asyncio.run(main())

    return run


def test_before_the_model_is_loaded_jobs_are_taken_in(with_jobs, make_app) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        accepted = await client.post("/v2/default/run", json={"input": {"prompt": "x"}})
        assert accepted.json()["status"] == "IN_QUEUE"
        state = (await client.get("/v2/default/health")).json()
        assert state["workers"]["initializing"] == 1
        assert state["jobs"]["inQueue"] == 1
        waited = await client.post("/v2/default/runsync?wait=1000", json={"input": {"prompt": "x"}})
        assert waited.json() == {"id": waited.json()["id"], "status": "IN_QUEUE"}

    with_jobs(work, make_app(loaded=False))


def test_a_server_that_stops_takes_nothing_in(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, jobs: JobService) -> None:
        done = (await client.post("/runsync", json={"input": {"prompt": "x"}})).json()
        jobs.queue.stopping = True
        refused = await client.post("/run", json={"input": {"prompt": "x"}})
        assert (refused.status_code, list(refused.json())) == (503, ["error"])
        assert int(refused.headers["Retry-After"]) > 0
        assert (await client.get(f"/status/{done['id']}")).json()["status"] == "COMPLETED"

    with_jobs(work)


def test_check_12_the_default_wait(with_jobs, make_app, monkeypatch: pytest.MonkeyPatch) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        job_id = (await client.post("/run", json={"input": {"prompt": "x"}})).json()["id"]
        for path in ("/runsync", f"/status-sync/{job_id}"):
            began = time.monotonic()
            reply = await client.post(path, json={"input": {"prompt": "x"}})
            assert reply.json()["status"] == "IN_QUEUE"
            assert 0.3 <= time.monotonic() - began < 0.9

    assert routes.WAIT_SECONDS == 90
    monkeypatch.setattr(routes, "WAIT_SECONDS", 0.3)
    with_jobs(work, make_app(loaded=False))


@pytest.mark.parametrize(
    "path",
    [
        "//run",
        "/v2//default/run",
        "//v2/default/run",
        "///v2///default///run",
        "/v2/default//run",
        "/prefix//v2//smol/run",
    ],
)
def test_doubled_slashes_count_as_one(with_jobs, make_app, path: str) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        # As raw bytes: to a client that joins URLs, two slashes in front are followed by a host.
        reply = await client.post(
            httpx.URL("http://headrace").copy_with(raw_path=path.encode()), json={"input": {"a": 1}}
        )
        assert reply.json().keys() == {"id", "status"}

    with_jobs(work, make_app(loaded=False), root_path="/prefix")


def test_a_stream_that_has_begun_ends_where_the_store_fails(with_jobs, make_app) -> None:
    async def work(client: httpx.AsyncClient, jobs: JobService) -> None:
        job_id = (await client.post("/run", json={"input": {"prompt": "x"}})).json()["id"]
        read, reads = jobs.queue._store.read, itertools.count()

        async def fails_later(*arguments: Any) -> Any:
            if next(reads):
                raise StoreUnavailable("The disk is away.")
            return await read(*arguments)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(jobs.queue._store, "read", fails_later)
            begun = await client.get(f"/stream/{job_id}?mode=lines")
            assert (begun.status_code, begun.text) == (200, "\n")
            refused = await client.get(f"/stream/{job_id}?mode=lines")
            assert (refused.status_code, refused.json()) == (503, {"error": "The disk is away."})

    with_jobs(work, make_app(loaded=False))


def test_a_cancelled_stream_can_be_told_to_end(with_jobs, make_app) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> list[Any]:
        job_id = (await client.post("/run", json={"input": {"prompt": "x"}})).json()["id"]
        await client.post(f"/cancel/{job_id}")
        replies = [(await client.post(f"/stream/{job_id}")).json() for _ in range(3)]
        assert (await client.get(f"/status/{job_id}")).json()["status"] == "CANCELLED"
        return replies

    told = {"status": "CANCELLED", "stream": []}
    assert with_jobs(work, make_app(loaded=False)) == [told] * 3
    ends = {"status": "FAILED", "stream": [], "error": "cancelled"}
    assert with_jobs(work, make_app(loaded=False), job_stream_ends_cancelled=True) == [told, ends, ends]


def test_a_whole_reply(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> Any:
        return (await client.post("/runsync", json={"input": {"prompt": "x"}})).json()

    assert with_jobs(work)["output"] == [
        {"choices": [{"tokens": [" Paris" * 16]}], "usage": {"input": 1, "output": 16}}
    ]


def test_defaults_of_native_jobs_are_the_operators(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> Any:
        return (await client.post("/runsync", json={"input": {"prompt": "x", "stream": True}})).json()["output"]

    sizes = {"job_batch_size": 4, "job_min_batch_size": 2, "job_batch_size_growth_factor": 1.5, "job_max_tokens": 10}
    chunks = with_jobs(work, **sizes)
    assert [len(chunk["choices"][0]["tokens"]) for chunk in chunks] == [2, 3, 4, 1]


def test_check_04_webhooks_that_cannot_be_called_are_refused(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        for url in ("ftp://a.b", "http://[1", "http://", "//a.b", "http://127.0.0.1/hook", "http://localhost/hook"):
            refused = await client.post("/run", json={"input": {"prompt": "x"}, "webhook": url})
            assert (refused.status_code, list(refused.json())) == (400, ["error"])
            assert "webhook" in refused.json()["error"]

    with_jobs(work)


def test_ids_that_are_none_are_unknown(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        for job_id in ("%00", "x" * 200, "%F0%9F%98%80", "a.b", "'"):
            assert (await client.get(f"/status/{job_id}")).status_code == 404

    with_jobs(work)


def test_the_routes_are_documented(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        paths = (await client.get("/openapi.json")).json()["paths"]
        assert {"get", "post"} == set(paths["/v2/{endpoint}/stream/{job_id}"])
        run = paths["/v2/{endpoint}/runsync"]["post"]
        assert [each["name"] for each in run["parameters"]] == ["endpoint", "wait"]
        assert run["requestBody"]["content"]["application/json"]["schema"]["required"] == ["input"]
        assert "/run" not in paths

    with_jobs(work)


def test_unknown_endpoints(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        for path in ("/v2/nope/run", "/v2/nope/runsync"):
            refused = await client.post(path, json={"input": {"prompt": "x"}})
            assert (refused.status_code, refused.json()) == (404, {"error": "There is no endpoint 'nope'."})
        direct = await client.get("/v2/nope/openai/v1/models")
        assert (direct.status_code, direct.json()["error"]["type"]) == (404, "NotFoundError")
        assert (await client.get("/health")).content == b""

    with_jobs(work)


def test_a_bare_get_can_be_told_to_poll(with_jobs) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> Any:
        job_id = (await client.post("/runsync", json={"input": {"prompt": "x"}})).json()["id"]
        queries = ({"offset": 0}, {"offset": 0, "mode": "lines"})
        replies = [await client.get(f"/stream/{job_id}", params=query) for query in queries]
        assert replies[0].text.splitlines() == replies[1].text.splitlines()
        refused = await client.get(f"/stream/{job_id}?mode=frames")
        assert refused.status_code == 400
        return [reply.headers["content-type"] for reply in replies]

    assert with_jobs(work) == ["application/x-ndjson"] * 2
    assert with_jobs(work, job_stream_default="poll") == ["application/json", "application/x-ndjson"]


@pytest.mark.parametrize(
    ("method", "mode", "headers", "lines"),
    [
        ("GET", None, {"Authorization": "Bearer x", "Accept": "*/*"}, True),
        ("GET", None, {"Content-Type": "application/json"}, False),
        ("GET", None, {"Accept": "application/json, text/plain"}, False),
        ("GET", None, {"User-Agent": "RunPod-JS-SDK/1.1.2"}, False),
        ("POST", None, {}, False),
        ("GET", "poll", {}, False),
        ("POST", "lines", {"Content-Type": "application/json"}, True),
        ("POST", None, {"Accept": "application/x-ndjson", "Content-Type": "application/json"}, True),
        ("GET", None, {"Accept": "application/jsonl"}, True),
    ],
)
def test_who_reads_lines(method: str, mode: str | None, headers: dict[str, str], lines: bool) -> None:
    raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
    request = Request({"type": "http", "method": method, "path": "/stream/x", "headers": raw, "query_string": b""})
    assert wants_lines(request, mode, by_default=True) is lines


def test_endpoint_ids() -> None:
    models = [
        ServeConfig(model=ModelConfig(served_model_name=names)).served[0]
        for names in (("smol", "org/smol"), ("org/embedder", "minilm"), ("org--smol",))
    ]
    endpoints = Endpoints(models)
    assert endpoints.queues == ("default", "org--embedder")
    assert {endpoints.queue_of(name) for name in ("default", "smol", "org--smol")} == {"default"}
    assert {endpoints.queue_of(name) for name in ("org--embedder", "minilm")} == {"org--embedder"}
    assert endpoints.model_of("default") is None
    assert endpoints.model_of("org--embedder") == "org/embedder"
    for name in ("org/smol", "Smol", ""):
        with pytest.raises(NotFound, match="no endpoint"):
            endpoints.queue_of(name)


def test_rates_are_counted_over_a_window() -> None:
    now = [0.0]
    limits = RateLimits({"run": 2}, {}, clock=lambda: now[0])

    def call(endpoint: str = "a", operation: str = "run") -> None:
        with limits.admit(endpoint, operation):
            pass

    call()
    now[0] = 4
    call()
    with pytest.raises(RateLimited) as refused:
        call()
    assert refused.value.retry_after == 6
    call("b")
    call("a", "status")
    now[0] = 10
    call()
    with pytest.raises(RateLimited):
        call()


def test_requests_at_a_time_are_counted() -> None:
    limits = RateLimits({}, {"run": 1})
    with limits.admit("a", "run"):
        with pytest.raises(RateLimited), limits.admit("a", "run"):
            pass
        with limits.admit("b", "run"):
            pass
    with limits.admit("a", "run"):
        pass


def test_a_held_stream_counts_until_its_end(with_jobs, make_app) -> None:
    async def work(client: httpx.AsyncClient, _: JobService) -> None:
        job_id = (await client.post("/run", json={"input": {"prompt": "x"}})).json()["id"]
        poll = f"/stream/{job_id}?mode=poll&wait=1000"
        replies = await asyncio.gather(client.get(poll), client.get(poll))
        assert sorted(reply.status_code for reply in replies) == [200, 429]
        assert (await client.get(poll)).status_code == 200

    with_jobs(work, make_app(loaded=False), job_concurrency_limits={"stream": 1})


@pytest.mark.parametrize(
    ("engine", "in_progress", "gauges"),
    [
        (EngineState.LOADING, 0, {"initializing": 1}),
        (EngineState.READY, 0, {"idle": 1, "ready": 1}),
        (EngineState.READY, 3, {"running": 1}),
        (EngineState.RESTARTING, 3, {"unhealthy": 1}),
        (EngineState.DEAD, 0, {"unhealthy": 1}),
    ],
)
def test_worker_gauges(engine: EngineState, in_progress: int, gauges: dict[str, int]) -> None:
    workers = health(JobCounts(in_progress=in_progress), engine).workers
    names = ("idle", "initializing", "ready", "running", "throttled", "unhealthy")
    assert {name: getattr(workers, name) for name in names} == {**dict.fromkeys(names, 0), **gauges}


@pytest.mark.parametrize("limits", [{"run": 0}, {"run": True}, {"fly": 3}, {"run": "3"}])
def test_limits_that_make_no_sense_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="job_rate_limits"):
        RunpodConfig(job_rate_limits=limits)
