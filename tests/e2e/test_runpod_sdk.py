"""The acceptance list of the job API: the official SDK, sync and asyncio, and plain HTTP, against one server."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import openai
import pytest
import requests
import runpod
from job_calls import TERMINAL, JobCalls, endless, native, receiving, text_of
from runpod.endpoint import Job

GAUGES = ("idle", "initializing", "ready", "running", "throttled", "unhealthy")
COUNTERS = ("completed", "failed", "inProgress", "inQueue", "retried")


@pytest.fixture(scope="module")
def job_server(
    smollm2_path: Path, start_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    flags = ("--max-model-len", "2048", "--max-running-jobs", "8", "--job-webhook-private")
    limits = ("--job-webhook-retry-delay", "0.1", "--max-job-body-bytes", "1m")
    folder = tmp_path_factory.mktemp("jobs")
    names = ("--served-model-name", "smol", "org/smol")
    with start_server(str(smollm2_path), *names, *flags, *limits, "--jobs-dir", str(folder)) as server:
        yield server


@pytest.fixture
def calls(job_server) -> Iterator[JobCalls]:
    calls = JobCalls(job_server.url)
    yield calls
    calls.close()


@pytest.fixture
def endpoint(job_server, monkeypatch: pytest.MonkeyPatch) -> runpod.Endpoint:
    monkeypatch.setattr(runpod, "endpoint_url_base", f"{job_server.url}/v2")
    return runpod.Endpoint("smol", api_key="local")


@pytest.fixture
def with_asyncio(endpoint) -> Callable[..., Any]:
    """Run a coroutine function with an asyncio endpoint of the SDK."""

    def run(work: Callable[[Any], Any]) -> Any:
        async def main() -> Any:
            async with aiohttp.ClientSession() as session:
                return await work(runpod.AsyncioEndpoint("smol", session, api_key="local"))

        return asyncio.run(main())

    return run


@pytest.fixture
def busy(calls: JobCalls) -> Iterator[list[str]]:
    """As many endless jobs as run at a time."""
    ids = [calls.run(endless()) for _ in range(8)]
    for job_id in ids:
        calls.begun(job_id)
    yield ids
    for job_id in ids:
        calls.cancel(job_id)


def test_check_01_submission_under_load(calls: JobCalls, endpoint, busy: list[str]) -> None:
    began = time.monotonic()
    response = calls.http.post("/run", json={"input": native()})
    assert time.monotonic() - began < 3
    assert response.status_code == 200
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"id": response.json()["id"], "status": "IN_QUEUE"}
    job = endpoint.run({"prompt": "x"})
    assert isinstance(job, Job)
    assert calls.status(job.job_id)["status"] == "IN_QUEUE"
    for job_id in (response.json()["id"], job.job_id):
        calls.cancel(job_id)


def test_check_02_ids(calls: JobCalls) -> None:
    ids = [calls.run(native(max_tokens=1)) for _ in range(20)]
    assert len(set(ids)) == 20
    assert not any(job_id.startswith("sync-") for job_id in ids)
    assert calls.post("/runsync", {"input": native(max_tokens=1)})["id"].startswith("sync-")


def test_check_03_envelopes_of_the_sdk(calls: JobCalls, endpoint, with_asyncio) -> None:
    with receiving() as receiver:
        job = endpoint.run({"input": native(), "webhook": receiver.url, "policy": {"executionTimeout": 60000}})
        assert receiver.next()["id"] == job.job_id
    with pytest.raises(requests.HTTPError, match="400"):
        endpoint.run({"input": native(), "policy": {"executionTimeout": 4999}})

    async def nested(endpoint) -> Any:
        job = await endpoint.run({"input": native()})
        return await job.output(timeout=60)

    assert text_of(with_asyncio(nested)) == text_of(job.output(timeout=60))


@pytest.mark.parametrize("path", ["/run", "/runsync"])
@pytest.mark.parametrize("body", [b"{", b"[]", b"{}", b'{"input": {}}', b'{"input": "x"}', b""])
def test_check_04_what_is_no_job_is_refused(calls: JobCalls, path: str, body: bytes) -> None:
    response = calls.http.post(path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 400
    assert list(response.json()) == ["error"]
    assert isinstance(response.json()["error"], str)


def test_check_04_a_body_over_the_cap(calls: JobCalls) -> None:
    body = {"input": {"prompt": "x" * 1_100_000}}
    response = requests.post(f"{calls.http.base_url}run", json=body, timeout=60)
    assert (response.status_code, list(response.json())) == (413, ["error"])
    assert calls.http.post("/runsync", json={"input": {"prompt": "x" * 2_100_000}}).status_code == 413
    assert calls.post("/runsync", body)["error"]  # within its own cap, and too long for the model


def test_check_06_a_job_from_queue_to_output(endpoint, with_asyncio) -> None:
    job = endpoint.run({"input": native()})
    assert job.status() in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
    (output,) = job.output(timeout=60)
    assert "Paris" in output["choices"][0]["tokens"][0]
    assert output["usage"]["output"] == 8
    assert output["usage"]["input"] > 3
    assert job.status() == "COMPLETED"

    async def poll(endpoint) -> Any:
        job = await endpoint.run(native())
        assert await job.status() in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")
        output = await job.output(timeout=60)
        assert await job.status() == "COMPLETED"
        return output

    assert with_asyncio(poll) == [output]


def test_check_07_output_without_a_timeout(calls: JobCalls, endpoint, with_asyncio) -> None:
    job = endpoint.run({"input": endless()})
    began = time.monotonic()
    assert job.output() is None
    assert time.monotonic() - began < 3

    async def impatient(endpoint) -> None:
        other = await endpoint.run(endless())
        with pytest.raises(TimeoutError):
            await other.output()
        await other.cancel()

    with_asyncio(impatient)
    job.cancel()
    done = endpoint.run({"input": native()})
    calls.ended(done.job_id)
    assert done.output()[0]["usage"]["output"] == 8


def test_check_08_times(calls: JobCalls, busy: list[str]) -> None:
    waiting = calls.run(native())
    assert calls.status(waiting) == {"id": waiting, "status": "IN_QUEUE"}
    running = calls.status(busy[0])
    assert (running["status"], "executionTime" in running, "output" in running) == ("IN_PROGRESS", False, False)
    assert isinstance(running["delayTime"], int)
    assert running["workerId"]
    calls.cancel(busy[0])
    done = calls.ended(waiting)
    assert done["status"] == "COMPLETED"
    assert all(isinstance(done[name], int) and done[name] >= 0 for name in ("delayTime", "executionTime"))
    assert done["workerId"] == running["workerId"]
    assert not {"error", "retries"} & set(done)


def test_check_09_all_ways_to_a_status(calls: JobCalls, job_server) -> None:
    job_id = calls.run(native())
    done = calls.ended(job_id)
    for prefix in ("/v2/default", "/v2/smol", "/v2/org--smol", "/v2//default", ""):
        for method in ("GET", "POST"):
            reply = httpx.request(method, f"{job_server.url}{prefix}/status/{job_id}")
            assert reply.json() == done, prefix
        assert httpx.post(f"{job_server.url}{prefix}/status-sync/{job_id}?wait=1000").json() == done


def test_check_10_unknown_ids(calls: JobCalls, endpoint, with_asyncio) -> None:
    with pytest.raises(requests.HTTPError, match="404"):
        Job("smol", "no-such-job", endpoint.rp_client).status()

    async def unknown(endpoint) -> None:
        job = runpod.AsyncioJob("smol", "no-such-job", endpoint.session, endpoint.headers)
        with pytest.raises(KeyError, match="status"):
            await job.status()

    with_asyncio(unknown)
    for method, path in (
        ("GET", "/status/x"),
        ("GET", "/status-sync/x"),
        ("GET", "/stream/x"),
        ("GET", "/stream/x?mode=lines"),
        ("POST", "/cancel/x"),
        ("POST", "/retry/x"),
        ("POST", "/../elsewhere/run"),
        ("GET", "/nonsense"),
    ):
        response = calls.http.request(method, path)
        assert (response.status_code, list(response.json())) == (404, ["error"]), path
    wrong_method = calls.http.get("/run")
    assert (wrong_method.status_code, list(wrong_method.json())) == (405, ["error"])


def test_check_11_a_bad_sampling_value_fails_the_job(calls: JobCalls, endpoint) -> None:
    job = endpoint.run({"prompt": "x", "sampling_params": {"top_p": 2}})
    assert job.output(timeout=5) is None
    failed = calls.status(job.job_id)
    assert failed["status"] == "FAILED"
    assert "top_p" in failed["error"]
    assert "output" not in failed
    assert calls.ended(calls.run({"nothing": True}))["error"].startswith("input must have one of")


def test_check_12_run_sync_returns_the_output(endpoint) -> None:
    (output,) = endpoint.run_sync({"input": native()})
    assert "Paris" in text_of([output])
    chat = {
        "messages": [{"role": "user", "content": "Name the capital of France."}],
        "sampling_params": {"max_tokens": 9},
    }
    assert endpoint.run_sync(chat)[0]["usage"]["output"] <= 9


def test_check_13_a_wait_that_is_too_short(calls: JobCalls, busy: list[str]) -> None:
    began = time.monotonic()
    waiting = calls.post("/runsync?wait=1000", {"input": native()})
    assert 0.9 < time.monotonic() - began < 2.5
    assert waiting == {"id": waiting["id"], "status": "IN_QUEUE"}
    calls.cancel(busy[0])
    done = calls.ended(waiting["id"])
    assert (done["status"], done["output"][0]["usage"]["output"]) == ("COMPLETED", 8)
    running = calls.post("/runsync?wait=1000", {"input": endless()})
    assert (running["status"], isinstance(running["delayTime"], int)) == ("IN_PROGRESS", True)
    calls.cancel(running["id"])
    for wait in ("999", "300001", "x", "-1", "1e3", ""):
        response = calls.http.post(f"/runsync?wait={wait}", json={"input": native()})
        assert (response.status_code, list(response.json())) == (400, ["error"])
        assert "wait" in response.json()["error"]


def test_check_14_run_sync_falls_back_to_polling(calls: JobCalls, endpoint, busy: list[str]) -> None:
    post = endpoint.rp_client.post

    def impatient(path: str, data: Any, timeout: int) -> Any:
        reply = post(f"{path}?wait=1000", data, timeout)
        assert reply["status"] == "IN_QUEUE"
        calls.cancel(busy[0])
        return reply

    endpoint.rp_client.post = impatient
    (output,) = endpoint.run_sync({"input": native()})
    assert output["usage"]["output"] == 8


def test_check_15_a_caller_of_runsync_who_leaves(calls: JobCalls, busy: list[str]) -> None:
    known = {job["id"] for job in calls.get("/jobs")["jobs"]}
    with pytest.raises(httpx.ReadTimeout):
        calls.http.post("/runsync", json={"input": native()}, timeout=0.5)
    (job_id,) = {job["id"] for job in calls.get("/jobs")["jobs"]} - known
    assert calls.status(job_id)["status"] == "IN_QUEUE"
    calls.cancel(busy[0])
    done = calls.ended(job_id)
    assert (done["status"], done["output"][0]["usage"]["output"]) == ("COMPLETED", 8)


def test_check_16_a_stream_is_the_aggregate(calls: JobCalls, endpoint, with_asyncio) -> None:
    given = native("🙂 Emoji: 🎉🎈", max_tokens=60)
    (whole,) = endpoint.run_sync({"input": given})
    job = endpoint.run({"input": {**given, "stream": True}})
    chunks = list(job.stream())
    assert chunks == calls.status(job.job_id)["output"]
    assert text_of(chunks) == text_of([whole])
    assert chunks[-1]["usage"] == whole["usage"]

    async def stream(endpoint) -> Any:
        job = await endpoint.run({**given, "stream": True})
        return [chunk async for chunk in job.stream()]

    again = with_asyncio(stream)
    assert text_of(again) == text_of(chunks)  # which tokens come together depends on how busy the machine is
    assert again[-1]["usage"] == chunks[-1]["usage"]


def test_check_17_the_first_chunk_comes_early(calls: JobCalls, endpoint) -> None:
    job = endpoint.run({"input": endless()})
    first = next(job.stream())
    assert first["usage"]["output"] == 1
    assert calls.status(job.job_id)["status"] == "IN_PROGRESS"
    job.cancel()


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (native(stream=True, max_tokens=100), [1, 3, 9, 27, 50, 10]),
        (native(stream=True, max_tokens=13), [1, 3, 9]),
        (
            {
                **native(stream=True, max_tokens=40),
                "max_batch_size": 20,
                "min_batch_size": 4,
                "batch_size_growth_factor": 2,
            },
            [4, 8, 16, 12],
        ),
        (
            native(stream=True, max_tokens=40, max_batch_size=10, min_batch_size=2, batch_size_growth_factor=1.5),
            [2, 3, 5, 7, 10, 10, 3],
        ),
        ({**native(stream=True, max_tokens=25), "max_batch_size": 10, "batch_size_growth_factor": 1}, [10, 10, 5]),
    ],
)
def test_check_18_chunk_sizes(calls: JobCalls, given: dict[str, Any], sizes: list[int]) -> None:
    output = calls.ended(calls.run(given))["output"]
    assert [len(chunk["choices"][0]["tokens"]) for chunk in output] == sizes
    assert [chunk["usage"]["output"] for chunk in output] == [sum(sizes[: place + 1]) for place in range(len(sizes))]


def test_check_18_two_choices(calls: JobCalls) -> None:
    given = native(stream=True, max_tokens=4, n=2, temperature=1, seed=5)
    output = calls.ended(calls.run(given))["output"]
    assert [chunk["usage"]["output"] for chunk in output] == [1, 4, 8]
    assert [sum(len(choice["tokens"]) for choice in chunk["choices"]) for chunk in output] == [1, 3, 4]
    (whole,) = calls.ended(calls.run({**given, "stream": False}))["output"]
    assert [text_of(output, choice) for choice in (0, 1)] == [text_of([whole], choice) for choice in (0, 1)]


def test_check_19_polls_carry_everything_once(calls: JobCalls) -> None:
    job_id = calls.run(native(stream=True, max_tokens=120))
    taken: list[Any] = []
    while True:
        page = calls.poll(job_id)
        assert isinstance(page["stream"], list)
        taken += [part["output"] for part in page["stream"]]
        if page["status"] in TERMINAL:
            break
        assert page["status"] == "IN_PROGRESS"
    assert calls.poll(job_id) == {"status": "COMPLETED", "stream": []}
    assert taken == calls.status(job_id)["output"]


def test_check_20_a_drained_stream(calls: JobCalls, endpoint) -> None:
    job = endpoint.run({"input": native(stream=True)})
    chunks = list(job.stream())
    assert list(Job("smol", job.job_id, endpoint.rp_client).stream()) == []
    assert calls.status(job.job_id)["output"] == chunks
    assert [part["output"] for part in calls.poll(job.job_id, offset=1)["stream"]] == chunks[1:]


def test_check_21_idle_polls_are_held(calls: JobCalls, busy: list[str]) -> None:
    waiting = calls.run(native())
    held: dict[str, float] = {}

    def poll(name: str, **query: Any) -> None:
        began = time.monotonic()
        assert calls.poll(waiting, **query) == {"status": "IN_QUEUE", "stream": []}
        held[name] = time.monotonic() - began

    polls = [
        threading.Thread(target=poll, args=("default",)),
        threading.Thread(target=poll, args=("short",), kwargs={"wait": 1000}),
    ]
    for thread in polls:
        thread.start()
    first_byte = None
    began = time.monotonic()
    with calls.http.stream("POST", f"/stream/{waiting}?wait=7000") as reply:
        for part in reply.iter_raw():
            first_byte = first_byte or time.monotonic() - began
            last = part
    assert first_byte < 6 < time.monotonic() - began < 8.5
    assert json.loads(last) == {"status": "IN_QUEUE", "stream": []}
    for thread in polls:
        thread.join()
    assert 4 < held["default"] < 7
    assert 0.9 < held["short"] < 3
    calls.cancel(waiting)


def test_check_22_the_guides_loop_and_the_sdk(job_server, calls: JobCalls, with_asyncio) -> None:
    job_id = calls.run(native(stream=True, max_tokens=150))
    lines: list[Any] = []
    url = f"{job_server.url}/v2/smol/stream/{job_id}"
    with requests.get(url, headers={"Authorization": "Bearer KEY"}, stream=True, timeout=60) as reply:
        assert reply.headers["content-type"] == "application/x-ndjson"
        for line in reply.iter_lines():
            if line:
                lines.append(json.loads(line))
                if len(lines) == 1:
                    assert calls.status(job_id)["status"] == "IN_PROGRESS"
    assert len(lines) > 3
    assert [line["status"] in TERMINAL for line in lines] == [False] * (len(lines) - 1) + [True]
    assert [part["output"] for line in lines for part in line["stream"]] == calls.status(job_id)["output"]

    async def stream(endpoint) -> list[Any]:
        job = await endpoint.run(native(stream=True, max_tokens=30))
        return [chunk async for chunk in job.stream()]

    assert with_asyncio(stream)[-1]["usage"]["output"] == 30


def test_a_line_reader_who_leaves_loses_nothing(job_server, calls: JobCalls) -> None:
    job_id = calls.run(native(stream=True, max_tokens=150))
    url = f"{job_server.url}/stream/{job_id}"
    with requests.get(url, stream=True, timeout=60) as reply:
        read = [json.loads(next(line for line in reply.iter_lines() if line))]
    with requests.get(url, stream=True, timeout=60) as reply:
        read += [json.loads(line) for line in reply.iter_lines() if line]
    outputs = [part["output"]["usage"]["output"] for page in read for part in page["stream"]]
    whole = [chunk["usage"]["output"] for chunk in calls.ended(job_id)["output"]]
    # What was on its way when the first reader left may be lost to both; it is never told twice or out of order.
    assert outputs == [each for each in whole if each in outputs]
    assert outputs[0] == 1
    assert outputs[-1] == 150


def test_check_23_a_job_that_does_not_stream(endpoint) -> None:
    job = endpoint.run({"input": native()})
    (chunk,) = job.stream()
    assert chunk["usage"]["output"] == 8


def test_check_24_cancel(calls: JobCalls, job_server, endpoint, with_asyncio, busy: list[str]) -> None:
    waiting = endpoint.run({"input": native()})
    running = Job("smol", busy[0], endpoint.rp_client)
    for job in (waiting, running):
        began = time.monotonic()
        assert job.cancel() == {"id": job.job_id, "status": "CANCELLED"}
        assert time.monotonic() - began < 3
        assert calls.post(f"/cancel/{job.job_id}", {}) == {"id": job.job_id, "status": "CANCELLED"}
        assert job.status() == "CANCELLED"
    assert calls.poll(busy[0]) == {"status": "CANCELLED", "stream": []}

    async def cancel(endpoint) -> Any:
        return await runpod.AsyncioJob("smol", busy[1], endpoint.session, endpoint.headers).cancel()

    assert with_asyncio(cancel) == {"id": busy[1], "status": "CANCELLED"}
    for job_id in busy:
        calls.cancel(job_id)
    calls.ended(calls.run(native()))  # a request behind them sees their places free
    metrics = httpx.get(f"{job_server.url}/metrics").text
    assert 'vllm:num_requests_running{engine="0",model_name="smol"} 0.0' in metrics
    assert calls.status(busy[0])["status"] == "CANCELLED"
    assert calls.status(waiting.job_id) == {"id": waiting.job_id, "status": "CANCELLED"}


def test_check_25_cancel_after_the_end(calls: JobCalls, endpoint) -> None:
    job = endpoint.run({"input": native()})
    done = calls.ended(job.job_id)
    assert job.cancel() == {"id": job.job_id, "status": "COMPLETED"}
    assert calls.status(job.job_id) == done


def test_check_26_purge(calls: JobCalls, endpoint, with_asyncio, busy: list[str]) -> None:
    waiting = [calls.run(native()) for _ in range(3)]
    assert endpoint.purge_queue() == {"removed": 3, "status": "completed"}
    assert [calls.status(job_id)["status"] for job_id in waiting] == ["CANCELLED"] * 3
    assert calls.status(busy[0])["status"] == "IN_PROGRESS"

    async def purge(endpoint) -> Any:
        return await endpoint.purge_queue()

    assert with_asyncio(purge) == {"removed": 0, "status": "completed"}


def test_check_27_retry(calls: JobCalls) -> None:
    failed = calls.run({"prompt": "x", "sampling_params": {"top_p": 2}})
    assert calls.ended(failed)["status"] == "FAILED"
    assert calls.post(f"/retry/{failed}") == {"id": failed, "status": "IN_QUEUE"}
    again = calls.ended(failed)
    assert (again["status"], "retries" in again) == ("FAILED", False)
    done = calls.run(native())
    calls.ended(done)
    refused = calls.http.post(f"/retry/{done}")
    assert (refused.status_code, list(refused.json())) == (400, ["error"])
    calls.get(f"/status/{done}", ttl=1)
    until = time.monotonic() + 5
    while calls.http.get(f"/status/{done}").status_code != 404:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert calls.http.post(f"/retry/{done}").status_code == 404


def test_check_28_health(calls: JobCalls, endpoint, with_asyncio) -> None:
    before = endpoint.health()
    assert sorted(before["jobs"]) == sorted(COUNTERS)
    assert sorted(before["workers"]) == sorted(GAUGES)
    assert all(type(count) is int for part in before.values() for count in part.values())
    assert before["workers"] == {**dict.fromkeys(GAUGES, 0), "idle": 1, "ready": 1}
    running = [calls.run(endless()) for _ in range(9)]
    calls.begun(running[0])

    async def health(endpoint) -> Any:
        return await endpoint.health()

    now = with_asyncio(health)
    assert now["workers"] == {**dict.fromkeys(GAUGES, 0), "running": 1}
    assert (now["jobs"]["inProgress"], now["jobs"]["inQueue"]) == (8, 1)
    for job_id in running:
        calls.cancel(job_id)
    calls.ended(calls.run(native()))
    calls.ended(calls.run({"nothing": True}))
    after = endpoint.health()["jobs"]
    assert after["completed"] == before["jobs"]["completed"] + 1
    assert after["failed"] == before["jobs"]["failed"] + 1


def test_check_32_webhooks(calls: JobCalls) -> None:
    with receiving() as receiver:
        given = native()
        job_id = calls.run(given, webhook=receiver.url)
        call = receiver.next()
        assert call == {"type": "application/json", **calls.status(job_id), "input": given, "webhook": receiver.url}
        cancelled = calls.run(endless(), webhook=receiver.url)
        calls.begun(cancelled)
        calls.cancel(cancelled)
        assert (receiver.next()["status"], receiver.calls.empty()) == ("CANCELLED", True)
    with receiving() as receiver:
        receiver.answers = [500]
        job_id = calls.run(given, webhook=receiver.url)
        assert [receiver.next()["id"] for _ in range(3)] == [job_id] * 3
        assert calls.status(job_id)["status"] == "COMPLETED"
        calls.ended(calls.run(native(max_tokens=60)))
        assert receiver.calls.empty()


def test_check_35_the_openai_client(job_server) -> None:
    for prefix in ("/v2/default", "/v2/org--smol", ""):
        with openai.OpenAI(base_url=f"{job_server.url}{prefix}/openai/v1", api_key="local", max_retries=0) as client:
            assert [model.id for model in client.models.list()] == ["smol", "org/smol"]
    with openai.OpenAI(base_url=f"{job_server.url}/v2/smol/openai/v1", api_key="local", max_retries=0) as client:
        options = {"model": "smol", "max_tokens": 8, "temperature": 0}
        messages = [{"role": "user", "content": "Hi"}]
        chat = client.chat.completions.create(messages=messages, **options).choices[0].message.content
        chunks = client.chat.completions.create(messages=messages, stream=True, **options)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == chat
        text = client.completions.create(prompt="Once", **options).choices[0].text
        chunks = client.completions.create(prompt="Once", stream=True, **options)
        assert "".join(chunk.choices[0].text for chunk in chunks) == text
        with pytest.raises(openai.BadRequestError, match="temperature") as refused:
            client.completions.create(model="smol", prompt="x", temperature=3)
        assert refused.value.body["code"] == 400
    with (
        openai.OpenAI(base_url=f"{job_server.url}/v2/nope/openai/v1", api_key="local", max_retries=0) as client,
        pytest.raises(openai.NotFoundError, match="nope"),
    ):
        client.models.list()


def test_check_36_openai_jobs(calls: JobCalls, endpoint) -> None:
    chat = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 40, "temperature": 0}
    (whole,) = endpoint.run_sync({"openai_input": chat})
    assert whole["object"] == "chat.completion"
    job = endpoint.run({"openai_route": "/v1/chat/completions", "openai_input": {**chat, "stream": True}})
    chunks = list(job.stream())
    assert chunks == calls.status(job.job_id)["output"]
    assert all(chunk.startswith("data: ") and chunk.endswith("\n\n") for chunk in chunks)
    *frames, done, rest = "".join(chunks).split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    events = [json.loads(frame.removeprefix("data: ")) for frame in frames]
    text = "".join(event["choices"][0]["delta"].get("content", "") for event in events)
    assert text == whole["choices"][0]["message"]["content"]
    failed = calls.ended(calls.run({"openai_input": {**chat, "model": "nope"}}))
    assert failed["status"] == "FAILED"
    assert "nope" in failed["error"]


def test_check_37_routes(calls: JobCalls) -> None:
    (models,) = calls.ended(calls.run({"route": "/v1/models"}))["output"]
    assert [model["id"] for model in models["data"]] == ["smol", "org/smol"]
    for given in ({"route": "/metrics"}, {"route": "/v2/default/purge-queue", "method": "POST"}, {"openai_route": "/"}):
        failed = calls.ended(calls.run(given))
        assert failed["status"] == "FAILED"
        assert "cannot call" in failed["error"]


def test_beam_search(calls: JobCalls) -> None:
    beams = {"use_beam_search": True, "best_of": 3, "n": 2, "max_tokens": 6, "ignore_eos": False}
    (output,) = calls.ended(calls.run(native(**beams)))["output"]
    texts = [choice["tokens"][0] for choice in output["choices"]]
    assert len(set(texts)) == 2
    streamed = calls.ended(calls.run(native(stream=True, **beams)))["output"]
    assert [text_of(streamed, choice) for choice in (0, 1)] == texts


def test_an_idempotency_key_names_a_job(calls: JobCalls) -> None:
    headers = {"Idempotency-Key": "once"}
    body = {"input": native()}
    first, second = (calls.http.post("/run", json=body, headers=headers).json() for _ in range(2))
    assert first["id"] == second["id"]
    other = calls.http.post("/run", json={"input": native("x")}, headers=headers)
    assert (other.status_code, list(other.json())) == (409, ["error"])
    calls.ended(first["id"])
    assert calls.http.post("/run", json=body, headers=headers).json() == {"id": first["id"], "status": "COMPLETED"}


def test_the_list_of_jobs(calls: JobCalls) -> None:
    ids = [calls.run(native(max_tokens=1)) for _ in range(3)]
    listed = calls.get("/jobs", limit=3)["jobs"]
    assert [job["id"] for job in listed] == ids[::-1]
    for job_id in ids:
        calls.ended(job_id)
    completed = calls.get("/jobs", status="COMPLETED", limit=1)["jobs"]
    assert (completed[0]["id"], "output" in completed[0]) == (ids[-1], False)
    assert calls.http.get("/jobs?status=DONE").status_code == 400
