"""A process that runs a job queue until it is killed: `python killed_server.py CONFIG`, CONFIG as JSON.

A line on standard input is a job's input, with a number of its own; it is answered with a line [number, id] when the
job is accepted. Pages of its stream follow as lines [number, [chunks]] if the input says that it is to be read.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.config.jobs import JobsConfig
from headrace.core.errors import BadRequest
from headrace.jobs import Emit, Job, JobQueue, JobService, Scope, Submission

SCOPE = Scope("default")


async def execute(job: Job, job_input: Mapping[str, Any], emit: Emit) -> None:
    """`chunks` chunks with pauses between them, each of which says which attempt made it; then an error, if wished."""
    for place in range(job_input["chunks"]):
        await asyncio.sleep(job_input["pause"])
        await emit([job.attempt, place])
    if job_input["fails"]:
        raise BadRequest("as wished")


async def accept(queue: JobQueue, job_input: dict[str, Any]) -> None:
    job = await queue.submit(SCOPE, Submission(input=job_input))
    print(json.dumps([job_input["number"], job.id]), flush=True)
    last = not job_input["read"]
    while not last:
        async with queue.stream(SCOPE, job.id, hold=60) as page:
            print(json.dumps([job_input["number"], [json.loads(chunk) for chunk in page.chunks]]), flush=True)
            last = page.last


def config_of(text: str) -> JobsConfig:
    fields = json.loads(text)
    if "jobs_dir" in fields:
        fields["jobs_dir"] = Path(fields["jobs_dir"])
    return JobsConfig(**fields)


async def main() -> None:
    service = JobService(config_of(sys.argv[1]), endpoints=["default"], render_webhook=lambda *_: b"{}")
    await service.start()
    service.open(execute)
    print("[]", flush=True)
    accepting = set()
    while line := await asyncio.to_thread(sys.stdin.readline):
        accepting.add(asyncio.create_task(accept(service.queue, json.loads(line))))


if __name__ == "__main__":
    asyncio.run(main())
