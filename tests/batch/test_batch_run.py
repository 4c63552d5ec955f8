"""A pass over the lines of a batch: how many at a time, and what stops it."""

from __future__ import annotations

import asyncio
import io
import json
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.batch import BatchRecord, BatchRun, Tally
from headrace.batch.lines import read_lines
from headrace.client import AsyncClient, AuthenticationError, ConnectFailed, RetryPolicy

QUICK = RetryPolicy(max_retries=2, first_delay=0.001, longest_delay=0.002)

Answer = Callable[[httpx.Request], Any]


def lines_of(*custom_ids: str) -> bytes:
    return b"".join(
        json.dumps({"custom_id": name, "url": "/v1/completions", "body": {"prompt": name}}).encode() + b"\n"
        for name in custom_ids
    )


async def run(
    answer: Answer,
    given: bytes,
    path: Path,
    *,
    concurrency: int = 4,
    on_progress: Callable[[Tally], None] | None = None,
) -> Tally:
    transport = httpx.MockTransport(answer)
    async with AsyncClient(transport=transport, retry=QUICK) as client:
        with BatchRecord.open(path) as record:
            lines = read_lines(io.BytesIO(given))
            batch = BatchRun(
                client, lines, record, concurrency=concurrency, on_progress=on_progress or (lambda _: None)
            )
            await batch.run()
            return batch.tally


def outcomes(path: Path) -> dict[str, Any]:
    found = [json.loads(line) for line in path.read_text().splitlines()]
    by_name = {outcome["custom_id"] or outcome["id"]: outcome for outcome in found}
    assert len(by_name) == len(found), "a line stands twice in the output"
    return by_name


def prompt_of(request: httpx.Request) -> str:
    return json.loads(request.content)["prompt"]


def test_a_window_of_requests_and_no_more(tmp_path: Path) -> None:
    running, most = 0, 0

    async def answer(request: httpx.Request) -> httpx.Response:
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.001)
        running -= 1
        return httpx.Response(200, json={"id": prompt_of(request)})

    names = [f"r{number}" for number in range(50)]
    shown: list[int] = []
    path = tmp_path / "out.jsonl"
    given = lines_of(*names)
    tally = asyncio.run(run(answer, given, path, on_progress=lambda tally: shown.append(tally.succeeded)))
    assert most == 4
    assert tally == Tally(succeeded=50, read_bytes=len(given))
    assert shown == list(range(1, 51))
    assert {name: outcome["response"]["request_id"] for name, outcome in outcomes(path).items()} == {
        name: name for name in names
    }


def test_failures_are_of_their_line_alone(tmp_path: Path) -> None:
    seen: dict[str, int] = {}

    def answer(request: httpx.Request) -> httpx.Response:
        name = prompt_of(request)
        seen[name] = seen.get(name, 0) + 1
        if name == "refused":
            return httpx.Response(400, json={"error": {"message": "n must be 1."}})
        if name == "busy" and seen[name] < 3:
            return httpx.Response(503, headers={"Retry-After": "0"})
        if name == "broken":
            raise httpx.ReadError("cut")
        if name == "slow":
            raise httpx.ReadTimeout("silence")
        if name == "garbage":
            return httpx.Response(200, content=b"<html>")
        return httpx.Response(200, json={})

    names = ["good", "refused", "busy", "broken", "slow", "garbage"]
    given = lines_of(*names, "good") + b"nonsense\n"
    path = tmp_path / "out.jsonl"
    tally = asyncio.run(run(answer, given, path))
    found = outcomes(path)
    assert {name: (found[name]["error"] or {"code": None})["code"] for name in found} == {
        "good": None,
        "refused": "http_400",
        "busy": None,
        "broken": "no_answer",
        "slow": "no_answer",
        "garbage": "no_answer",
        "batch_req_7": "duplicate_custom_id",
        "batch_req_8": "invalid_line",
    }
    assert found["refused"]["response"]["body"] == {"error": {"message": "n must be 1."}}
    assert (tally.succeeded, tally.failed) == (2, 6)
    assert seen == {"good": 1, "refused": 1, "busy": 3, "broken": 3, "slow": 1, "garbage": 1}

    again = asyncio.run(run(answer, given, path))
    assert (again.succeeded, again.failed, again.skipped) == (0, 0, 8)
    assert outcomes(path) == found


@pytest.mark.parametrize("kind", [ConnectFailed, AuthenticationError])
def test_what_would_fail_all_stops_the_batch(tmp_path: Path, kind: type[Exception]) -> None:
    there = True

    def answer(request: httpx.Request) -> httpx.Response:
        nonlocal there
        if not there and kind is ConnectFailed:
            raise httpx.ConnectError("refused")
        if not there:
            return httpx.Response(401, json={"error": "Unauthorized"})
        there = prompt_of(request) != "r9"
        return httpx.Response(200, json={})

    given = lines_of(*(f"r{number}" for number in range(100)))
    path = tmp_path / "out.jsonl"
    with pytest.raises(kind):
        asyncio.run(run(answer, given, path))
    done = outcomes(path)
    assert all(outcome["error"] is None for outcome in done.values())
    assert 1 <= len(done) <= 13
    there = True
    tally = asyncio.run(run(lambda _: httpx.Response(200, json={}), given, path))
    assert tally.skipped == len(done)
    assert len(outcomes(path)) == 100


def test_a_file_that_cannot_grow_stops_the_batch(tmp_path: Path) -> None:
    """It has whole lines only, and the next run goes on behind them."""
    names = [f"r{number}" for number in range(20)]
    path = tmp_path / "out.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            asyncio.run(run(lambda _: httpx.Response(200, json={}), lines_of(*names), path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert 300 < path.stat().st_size < 500
    done = len(outcomes(path))
    assert asyncio.run(run(lambda _: httpx.Response(200, json={}), lines_of(*names), path)).skipped == done
    assert outcomes(path).keys() == set(names)


def test_a_run_that_is_cancelled_leaves_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "out.jsonl"

    async def cancelled() -> None:
        enough = asyncio.Event()

        def note(tally: Tally) -> None:
            if tally.succeeded == 20:
                enough.set()

        async def answer(_: httpx.Request) -> httpx.Response:
            await asyncio.sleep(0)
            return httpx.Response(200, json={"text": "x" * 1000})

        given = lines_of(*(f"r{number}" for number in range(10_000)))
        task = asyncio.create_task(run(answer, given, path, on_progress=note))
        await enough.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancelled())
    assert len(outcomes(path)) >= 20
