"""The real server, killed at random moments while it works through 200 mixed jobs."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

JOBS = 200
KILLS = 3


def job_inputs(rng: random.Random) -> Iterator[dict[str, Any]]:
    while True:
        sampling = {"max_tokens": rng.choice([1, 4, 16]), "n": rng.choice([1, 1, 2]), "ignore_eos": True}
        if rng.random() < 0.1:
            sampling["top_p"] = 2
        kind = rng.choice(["prompt", "messages", "openai"])
        if kind == "openai":
            yield {"openai_route": "/v1/completions", "openai_input": {"prompt": "One, two,", "max_tokens": 4}}
        else:
            text = {"prompt": "The sea is"} if kind == "prompt" else {"messages": [{"role": "user", "content": "Hi"}]}
            yield {**text, "sampling_params": sampling, "stream": rng.random() < 0.5}


def ended(client: httpx.Client, ids: list[str]) -> dict[str, Any]:
    found = {job_id: client.get(f"/status/{job_id}") for job_id in ids}
    assert {answer.status_code for answer in found.values()} <= {200}, "an accepted job was lost"
    bodies = {job_id: answer.json() for job_id, answer in found.items()}
    return {job_id: body for job_id, body in bodies.items() if body["status"] not in ("IN_QUEUE", "IN_PROGRESS")}


@pytest.mark.timeout(240)
def test_every_accepted_job_ends_once_though_the_server_is_killed(
    smollm2_path: Path, start_server: Callable[..., Any], tmp_path: Path
):
    rng = random.Random(11)
    inputs = job_inputs(rng)
    arguments = [str(smollm2_path), "--jobs-dir", str(tmp_path), "--max-model-len", "512", "--max-running-jobs", "16"]
    ids: list[str] = []
    before: dict[str, Any] = {}
    for life in range(KILLS + 1):
        with (
            start_server(*arguments) as server,
            httpx.Client(base_url=f"{server.url}/v2/default", timeout=60) as client,
        ):
            now = ended(client, ids)
            assert {job_id: now[job_id] for job_id in before} == before, "an ended job has changed"
            last = life == KILLS
            for _ in range(JOBS - len(ids) if last else rng.randrange(40, 70)):
                ids.append(client.post("/run", json={"input": next(inputs)}).json()["id"])
            if last:
                for job_id in ids:
                    client.get(f"/status-sync/{job_id}?wait=60000")
                before = ended(client, ids)
            else:
                for job_id in rng.sample(ids, 3):
                    client.post(f"/stream/{job_id}?wait=1000")
                before = ended(client, ids)
                server.process.kill()
                server.process.wait()
    assert before.keys() == set(ids)
    assert len(ids) == JOBS
    assert {body["status"] for body in before.values()} == {"COMPLETED", "FAILED"}
    for body in before.values():
        if body["status"] == "COMPLETED":
            assert body["output"]
        else:
            known = ("top_p", "job timed out after 1 retries", "the worker was lost after a part of the stream")
            assert any(text in body["error"] for text in known), body
    assert any(body.get("retries") for body in before.values())
