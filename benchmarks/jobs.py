"""The job queue: jobs a second from submission to completion, and how long calls take while the queue is long.

python benchmarks/jobs.py [--jobs 5000] [--queued 100000] [--url postgresql://...]
python benchmarks/jobs.py --server [--port 8123]      the same calls over HTTP, under an engine that is saturated

Without --server there is no engine: the executor emits one chunk of 200 characters. Inputs have 1000 characters. The
store is in a temporary folder next to the working directory, so that it lies on a real disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
from processes import started

from headrace.config.jobs import JobsConfig
from headrace.jobs import Emit, Job, JobQueue, JobService, Scope, Submission

SCOPE = Scope("default")
INPUT = {"prompt": "x" * 1000}
CHUNK = {"choices": [{"tokens": ["y" * 200]}]}
SUBMITTERS = 64
RATE = 200
"""Submissions a second while latency is measured, and jobs a second that are run meanwhile."""
SECONDS = 15
RUNNING = 64


class Latencies:
    """Seconds that calls took, by name."""

    def __init__(self) -> None:
        self._seconds: dict[str, list[float]] = {}

    async def of(self, name: str, call: Awaitable[Any]) -> Any:
        began = time.perf_counter()
        try:
            return await call
        finally:
            self._seconds.setdefault(name, []).append(time.perf_counter() - began)

    def report(self) -> None:
        for name, seconds in self._seconds.items():
            ordered = [1000 * value for value in sorted(seconds)]
            p50, p99 = (ordered[round(share * (len(ordered) - 1))] for share in (0.5, 0.99))
            print(f"  {name:<8} p50 {p50:6.1f} ms   p99 {p99:6.1f} ms   max {ordered[-1]:6.1f} ms   n {len(ordered)}")


def probe_disk(folder: Path) -> None:
    """What no committed job can be quicker than."""
    seconds = []
    with (folder / "probe").open("wb", buffering=0) as file:
        for _ in range(300):
            file.write(bytes(4096))
            began = time.perf_counter()
            os.fsync(file.fileno())
            seconds.append(1000 * (time.perf_counter() - began))
    ordered = sorted(seconds)
    print(f"this disk takes {ordered[150]:.1f} ms for an fsync, {ordered[297]:.1f} ms at p99", flush=True)


async def at_once(job: Job, job_input: Mapping[str, Any], emit: Emit) -> None:
    await emit(CHUNK)


async def steadily(job: Job, job_input: Mapping[str, Any], emit: Emit) -> None:
    """With `RUNNING` at a time, `RATE` jobs a second, which do not end all at the same moment."""
    await asyncio.sleep(random.uniform(0.5, 1.5) * RUNNING / RATE)
    await emit(CHUNK)


async def throughput(queue: JobQueue, jobs: int) -> None:
    """From the first submission to the last completion, `SUBMITTERS` clients one after the other."""

    async def submit(count: int) -> list[Job]:
        return [await queue.submit(SCOPE, Submission(input=INPUT)) for _ in range(count)]

    began = time.perf_counter()
    made = await asyncio.gather(*(submit(jobs // SUBMITTERS) for _ in range(SUBMITTERS)))
    accepted = time.perf_counter() - began
    count = sum(map(len, made))
    while (await queue.counts("default")).completed < count:
        await asyncio.sleep(0.01)
    seconds = time.perf_counter() - began
    print(
        f"{count} jobs: {count / accepted:.0f} accepted a second, {count / seconds:.0f} completed a second", flush=True
    )


async def fill(queue: JobQueue, jobs: int) -> None:
    began = time.perf_counter()
    for first in range(0, jobs, 1000):
        some = range(min(1000, jobs - first))
        await asyncio.gather(*(queue.submit(SCOPE, Submission(input=INPUT)) for _ in some))
    print(f"{jobs} jobs queued in {time.perf_counter() - began:.1f} s", flush=True)


async def every(seconds: float, call: Callable[[], Awaitable[None]], duration: float) -> None:
    """Begin a call every so often, whether or not the ones before have ended."""
    calls = []
    began = time.perf_counter()
    for number in range(round(duration / seconds)):
        await asyncio.sleep(max(0.0, began + number * seconds - time.perf_counter()))
        calls.append(asyncio.ensure_future(call()))
    await asyncio.gather(*calls)


async def latency(queue: JobQueue) -> None:
    latencies = Latencies()
    recent: list[Job] = []

    async def submit() -> None:
        recent.append(await latencies.of("submit", queue.submit(SCOPE, Submission(input=INPUT))))

    async def look() -> None:
        if recent:
            await latencies.of("status", queue.get(SCOPE, recent[-1].id))
            await latencies.of("health", queue.counts("default"))

    async def cancel() -> None:
        if recent:
            await latencies.of("cancel", queue.cancel(SCOPE, recent.pop().id))

    await asyncio.gather(every(1 / RATE, submit, SECONDS), every(0.02, look, SECONDS), every(0.1, cancel, SECONDS))
    waiting = (await queue.counts("default")).in_queue
    print(f"{RATE} submissions and {RATE} completions a second, {waiting} jobs in the queue at the end:")
    latencies.report()


async def embedded(config: JobsConfig, jobs: int, queued: int) -> None:
    async def measure(execute: Any, measurement: Callable[[JobQueue], Awaitable[None]], before: int = 0) -> None:
        service = JobService(config, endpoints=["default"], render_webhook=lambda *_: b"{}")
        await service.start()
        await fill(service.queue, before) if before else None
        service.open(execute)
        await measurement(service.queue)
        await service.stop(0)

    await measure(at_once, lambda queue: throughput(queue, jobs))
    await measure(steadily, latency, queued)


async def over_http(url: str) -> None:
    """Jobs of 200 tokens keep the engine busy from before the first call until after the last."""
    latencies = Latencies()
    busy = {"input": {"prompt": "Once", "sampling_params": {"max_tokens": 200, "ignore_eos": True}}}
    async with httpx.AsyncClient(base_url=f"{url}/v2/default", timeout=60) as client:
        ids = [(await client.post("/run", json=busy)).json()["id"] for _ in range(500)]

        async def call(name: str, method: str, path: str, **options: Any) -> None:
            response = await latencies.of(name, client.request(method, path, **options))
            response.raise_for_status()

        await asyncio.gather(
            every(0.1, lambda: call("submit", "POST", "/run", json=busy), SECONDS),
            every(0.1, lambda: call("status", "GET", f"/status/{ids[0]}"), SECONDS),
            every(0.1, lambda: call("health", "GET", "/health"), SECONDS),
            every(0.1, lambda: call("cancel", "POST", f"/cancel/{ids.pop()}"), SECONDS),
        )
        health = (await client.get("/health")).json()
        await client.post("/purge-queue")
    print(f"a server with {json.dumps(health['jobs'])}:")
    latencies.report()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--jobs", type=int, default=5000)
    parser.add_argument("--queued", type=int, default=100_000)
    parser.add_argument("--url", help="a PostgreSQL database instead of SQLite")
    parser.add_argument("--server", action="store_true")
    parser.add_argument("--port", type=int, default=8123)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="jobs-", dir=".") as folder:
        path = Path(folder).resolve()
        if args.server:
            command = [sys.executable, "-m", "headrace", "serve", "--port", str(args.port), "--jobs-dir", str(path)]
            with started(command, f"http://127.0.0.1:{args.port}", path / "log") as server:
                asyncio.run(over_http(server.url))
            return
        probe_disk(path)
        where = {"jobs_url": args.url} if args.url else {"jobs_dir": path}
        limit = args.queued + RATE * SECONDS
        asyncio.run(
            embedded(JobsConfig(**where, max_running_jobs=RUNNING, max_queued_jobs=limit), args.jobs, args.queued)
        )


if __name__ == "__main__":
    main()
