"""kill -9 at random moments: every accepted job ends exactly once, and nothing is told twice or differently."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import random
import subprocess
import sys
import threading
from typing import Any

import killed_server
from job_tools import SCOPE, open_store, serving

from headrace.config.jobs import JobsConfig
from headrace.jobs import Job, JobStatus, records

JOBS = 200
PER_LIFE = 34


class Observer:
    """What the outside world has been told."""

    def __init__(self) -> None:
        self.ids: dict[int, str] = {}
        self.read: dict[int, list[list[int]]] = {}

    def hear(self, line: str) -> None:
        match json.loads(line):
            case [int(number), str(job_id)]:
                assert self.ids.setdefault(number, job_id) == job_id
            case [int(number), list(chunks)]:
                self.read.setdefault(number, []).extend(chunks)


def job_input(number: int, rng: random.Random) -> dict[str, Any]:
    chunks = rng.choice([0, 1, 1, 4, 12])
    pause = rng.choice([0, 0.002, 0.02])
    return {"number": number, "chunks": chunks, "pause": pause, "fails": rng.random() < 0.2, "read": rng.random() < 0.3}


def live_and_die(config: JobsConfig, observer: Observer, inputs: list[dict[str, Any]], rng: random.Random) -> None:
    """Run a server, feed it, and kill it while it is at work."""
    fields = {name: str(value) for name in ("jobs_dir", "jobs_url") if (value := getattr(config, name)) is not None}
    arguments = json.dumps({**fields, "job_lease": config.job_lease, "max_running_jobs": config.max_running_jobs})
    server = subprocess.Popen(
        [sys.executable, killed_server.__file__, arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert server.stdout.readline() == "[]\n"
    reader = threading.Thread(target=lambda: [observer.hear(line) for line in server.stdout if line.endswith("\n")])
    reader.start()
    kill = threading.Timer(rng.uniform(0.02, 0.4), server.kill)
    kill.start()
    with contextlib.suppress(BrokenPipeError):  # it may be killed while it is fed
        for one in inputs:
            server.stdin.write(json.dumps(one) + "\n")
            server.stdin.flush()
    server.wait()
    reader.join()
    for stream in (server.stdout, server.stdin):
        with contextlib.suppress(BrokenPipeError):
            stream.close()


async def all_jobs(config: JobsConfig) -> dict[str, Job]:
    async with open_store(config) as store:
        found = await store.read(records.find_all, SCOPE, None, 10_000, 0)
        return {job.id: await store.read(records.find_with_output, SCOPE, job.id, 0) for job in found}


def test_every_accepted_job_ends_once_however_often_the_server_is_killed(config_of):
    rng = random.Random(7)
    config = config_of(max_running_jobs=8, job_lease=1)
    observer = Observer()
    ended: dict[str, Job] = {}
    lives = 0
    while len(observer.ids) < JOBS:
        inputs = [job_input(1000 * lives + number, rng) for number in range(PER_LIFE)]
        live_and_die(config, observer, inputs, rng)
        lives += 1
        found = asyncio.run(all_jobs(config))
        assert set(observer.ids.values()) <= found.keys(), "an accepted job was lost"
        for job_id, job in ended.items():
            # Only the cursor of its readers may still move.
            assert dataclasses.replace(found[job_id], delivered=job.delivered) == job, "an ended job has changed"
        ended = {job_id: job for job_id, job in found.items() if job.status.terminal}
    assert lives > 3

    async def finish() -> dict[str, Job]:
        async with serving(config, killed_server.execute) as queue:
            return {job_id: await queue.wait(SCOPE, job_id, 30) for job_id in found}

    found = asyncio.run(finish())
    assert {job.status for job in found.values()} == {JobStatus.COMPLETED, JobStatus.FAILED}
    assert {job.id: job for job in ended.values()}.items() <= asyncio.run(all_jobs(config)).items()
    for number, job_id in observer.ids.items():
        check_output(found[job_id], observer.read.get(number, []))
    assert any(job.retries for job in found.values())


def check_output(job: Job, read: list[list[int]]) -> None:
    """One attempt made the whole of it, and what a reader was told is a part of it."""
    assert read == [[read[0][0], place] for place in range(len(read))] if read else True
    if job.status is JobStatus.COMPLETED:
        made = [json.loads(chunk) for chunk in job.output]
        assert made == [[job.attempt, place] for place in range(len(made))]
        assert read == made[: len(read)]
    else:
        wished = job.error == "as wished"
        assert wished or job.error.startswith(("job timed out after 1 retries", "the worker was lost after a part"))
