"""`headrace jobs` against the real app over HTTP, with a scripted executor in the place of the engine."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from headrace.api.app import create_app
from headrace.cli.main import main
from headrace.cli.server import http_server
from headrace.config.jobs import JobsConfig
from headrace.config.sections import HttpConfig, ServeConfig
from headrace.core.errors import BadRequest
from headrace.jobs import JobService
from headrace.metrics import Metrics
from headrace.service import ServedModel, Services


async def execute(job, job_input, emit) -> None:
    """Does what the input says: words as native chunks, anything else as it is, an error, or waiting for ever."""
    for word in job_input.get("words", []):
        await emit({"choices": [{"tokens": [word]}], "usage": {"input": 1, "output": 1}})
    for chunk in job_input.get("chunks", []):
        await emit(chunk)
    if "error" in job_input:
        raise BadRequest(job_input["error"])
    if "wait" in job_input:
        await asyncio.Event().wait()


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A server that runs one job at a time and has the key `k`."""
    listener = socket.create_server(("127.0.0.1", 0))
    running, stop = threading.Event(), threading.Event()
    thread = threading.Thread(
        target=asyncio.run, args=[serve(tmp_path_factory.mktemp("jobs"), listener, running, stop)]
    )
    thread.start()
    assert running.wait(30)
    yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    stop.set()
    thread.join(30)


async def serve(folder: Path, listener: socket.socket, running: threading.Event, stop: threading.Event) -> None:
    jobs = JobsConfig(jobs_dir=folder, max_running_jobs=1)
    config = ServeConfig(jobs=jobs, http=HttpConfig(api_key=("k",)))
    services = Services([ServedModel(config.served[0])], Metrics())
    service = JobService(jobs, endpoints=["default"], render_webhook=lambda *_: b"")
    await service.start()
    service.open(execute)
    server = http_server(create_app(services, config, service.queue), config)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    running.set()
    await asyncio.to_thread(stop.wait)
    server.should_exit = True
    await serving
    await service.stop(0)


class Command:
    """`headrace jobs` at one server."""

    def __init__(self, url: str, capsys: pytest.CaptureFixture[str]) -> None:
        self._url = url
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What it prints; to standard error, if it is to end with another code than 0."""
        found = main(["jobs", *arguments, "--url", self._url, "--api-key", "k"])
        shown = self._capsys.readouterr()
        assert found == code, shown
        return shown.out if code == 0 else shown.err

    def submit(self, operation: str = "run", **job_input: object) -> str:
        answer = httpx.post(
            f"{self._url}/v2/default/{operation}", json={"input": job_input}, headers={"Authorization": "k"}
        )
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]


@pytest.fixture
def jobs(url: str, capsys: pytest.CaptureFixture[str]) -> Iterator[Command]:
    command = Command(url, capsys)
    yield command
    for line in command("list", "--limit", "100").splitlines():
        command("cancel", line.split()[0])


def test_listing_and_showing(jobs: Command):
    done, failed = jobs.submit("runsync", words=["a", "b"]), jobs.submit("runsync", error="no such thing")
    newest, older, *_ = jobs("list").splitlines()
    assert newest.split()[:2] == [failed, "FAILED"]
    assert newest.endswith("no such thing")
    assert older.split()[:2] == [done, "COMPLETED"]
    assert "waited 0." in older
    assert "ran 0." in older
    assert jobs("list", "--status", "COMPLETED", "--limit", "1").split()[0] == done
    shown = json.loads(jobs("show", done))
    assert [chunk["choices"][0]["tokens"] for chunk in shown["output"]] == [["a"], ["b"]]
    assert "status" in jobs("list", "--status", "DONE", code=1)


def test_cancelling_retrying_and_purging(jobs: Command):
    running, *waiting = [jobs.submit(wait=True) for _ in range(4)]
    first, *rest = waiting
    assert jobs("cancel", first, rest[0]) == f"{first} CANCELLED\n{rest[0]} CANCELLED\n"
    assert jobs("purge") == "1 jobs were cancelled\n"
    assert json.loads(jobs("show", running))["status"] in ("IN_QUEUE", "IN_PROGRESS", "CANCELLED")
    jobs("cancel", running)
    failed = jobs.submit("runsync", error="no")
    assert jobs("retry", failed) == f"{failed} IN_QUEUE\n"
    assert "Only a FAILED or TIMED_OUT job can be retried" in jobs("retry", first, code=1)


def test_following_prints_the_text_as_it_comes_and_takes_nothing_from_others(jobs: Command, url: str):
    job = jobs.submit(words=["Once", " upon", " a time"], chunks=["data: {}\n\n", {"object": "list"}])
    for _ in range(2):
        assert jobs("follow", job) == 'Once upon a timedata: {}\n\n{"object": "list"}\n\n'
    poll = httpx.post(f"{url}/v2/default/stream/{job}", headers={"Authorization": "k"}).json()
    assert len(poll["stream"]) == 5


def test_following_a_job_that_fails_says_why(jobs: Command):
    job = jobs.submit(words=["half"], error="the engine is tired")
    assert f"headrace: Job {job} ended as FAILED: the engine is tired" in jobs("follow", job, code=1)


def test_what_the_server_says_and_what_nobody_says(jobs: Command, url: str, capsys):
    for command in ("show", "follow", "cancel"):
        said = jobs(command, "unknown", code=1)
        assert "No such job" in said
        assert "headrace jobs list shows what there is" in said
    assert main(["jobs", "list", "--url", url]) == 1
    assert "Set HEADRACE_API_KEY" in capsys.readouterr().err
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
    assert main(["jobs", "purge", "--url", f"http://127.0.0.1:{port}"]) == 1
    assert f"Nobody answers at http://127.0.0.1:{port}" in capsys.readouterr().err
