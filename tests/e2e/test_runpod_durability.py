"""The acceptance list of the job API: what a killed server, a killed engine and a stopped server leave of jobs."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import requests
from job_calls import TERMINAL, JobCalls, endless, native, receiving


@pytest.fixture
def start(smollm2_path: Path, start_server: Callable[..., Any], tmp_path: Path) -> Callable[..., Any]:
    """Start a server over the one jobs folder of the test."""

    def start(*flags: str) -> Any:
        folder = ("--jobs-dir", str(tmp_path / "jobs"), "--job-webhook-private")
        return start_server(str(smollm2_path), *folder, "--max-running-jobs", "1", "--max-model-len", "2048", *flags)

    return start


def engine_of(server: Any) -> int:
    """Process id of the server's engine."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (engine,) = [int(pid) for pid in children if "headrace.runtime.child" in Path(f"/proc/{pid}/cmdline").read_text()]
    return engine


def test_check_33_the_server_is_killed(start: Callable[..., Any]) -> None:
    with receiving() as receiver:
        with start() as server:
            calls = JobCalls(server.url)
            finished = calls.ended(calls.run(native()))
            ids = [calls.run(native(max_tokens=150, stream=True), webhook=receiver.url)]
            ids += [calls.run(native(max_tokens=number), webhook=receiver.url) for number in range(2, 7)]
            calls.begun(ids[0])
            server.process.send_signal(signal.SIGKILL)
            server.process.wait()
        with start() as server:
            calls = JobCalls(server.url)
            assert calls.status(finished["id"]) == finished
            jobs = [calls.ended(job_id) for job_id in ids]
            assert [job["id"] for job in jobs] == ids
            assert [job["status"] for job in jobs] == ["COMPLETED"] * 6
            assert [job.get("retries", 0) for job in jobs] == [1, 0, 0, 0, 0, 0]
            assert [job["output"][-1]["usage"]["output"] for job in jobs] == [150, 2, 3, 4, 5, 6]
            counted = calls.get("/health")["jobs"]
            assert counted == {"completed": 7, "failed": 0, "inProgress": 0, "inQueue": 0, "retried": 1}
            assert [receiver.next()["id"] for _ in ids] == ids
            assert receiver.calls.empty()


@pytest.fixture(scope="module")
def engine_server(
    smollm2_path: Path, start_server: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("jobs")
    with start_server(str(smollm2_path), "--jobs-dir", str(folder), "--max-model-len", "2048") as server:
        yield server


def test_check_34_the_engine_is_killed(engine_server) -> None:
    with closing(JobCalls(engine_server.url)) as calls:
        job_id = calls.run(endless())
        calls.begun(job_id)
        os.kill(engine_of(engine_server), signal.SIGKILL)
        until = time.monotonic() + 30
        while (job := calls.status(job_id)).get("retries") != 1 or job["status"] != "IN_PROGRESS":
            assert time.monotonic() < until, job
            time.sleep(0.02)
        assert calls.get("/health")["workers"]["unhealthy"] == 1
        calls.begun(job_id)
        os.kill(engine_of(engine_server), signal.SIGKILL)
        job = calls.ended(job_id)
        assert (job["status"], job["error"], job["retries"]) == ("FAILED", "job timed out after 1 retries", 1)
        assert calls.ended(calls.run(native()))["status"] == "COMPLETED"
        counted = calls.get("/health")["jobs"]
        assert (counted["retried"], counted["failed"], counted["completed"]) == (1, 1, 1)


def test_the_engine_is_killed_after_a_chunk_was_read(engine_server) -> None:
    """A second text is not joined to the beginning of a first one."""
    with closing(JobCalls(engine_server.url)) as calls:
        job_id = calls.run(endless())
        assert calls.poll(job_id, wait=60_000)["stream"]
        os.kill(engine_of(engine_server), signal.SIGKILL)
        job = calls.ended(job_id)
        assert (job["status"], "output" in job, "retries" in job) == ("FAILED", False, False)


def test_a_stopped_server_gives_its_jobs_back(start: Callable[..., Any]) -> None:
    with start("--shutdown-timeout", "0") as server:
        calls = JobCalls(server.url)
        running = calls.run(native(max_tokens=1500, stream=True))
        calls.begun(running)
        waiting = calls.run(native())
        with requests.get(f"{server.url}/stream/{waiting}", stream=True, timeout=60) as lines:
            server.process.send_signal(signal.SIGTERM)
            told = [json.loads(line) for line in lines.iter_lines() if line]
        assert not any(line["status"] in TERMINAL for line in told)
        assert server.process.wait(30) == 0
    with start() as server:
        calls = JobCalls(server.url)
        calls.begun(running)
        job = calls.status(running)
        assert (job["status"], "retries" in job) == ("IN_PROGRESS", False)
        calls.cancel(running)
        assert calls.ended(waiting)["status"] == "COMPLETED"


def test_a_second_signal_ends_a_server_with_jobs_at_once(start: Callable[..., Any]) -> None:
    with start("--shutdown-timeout", "600") as server, closing(JobCalls(server.url)) as calls:
        running = calls.run(endless())
        calls.begun(running)
        server.process.send_signal(signal.SIGINT)
        until = time.monotonic() + 10
        while "Shutting down" not in server.log:
            assert time.monotonic() < until
            time.sleep(0.02)
        assert server.process.poll() is None
        server.process.send_signal(signal.SIGINT)
        assert server.process.wait(20) == 0
        assert "Traceback" not in server.log
