"""`headrace bench`: against a real server, against one whose clock is known, and without any."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import pytest
from clock_server import Behaviour, ClockServer
from terminal import on_terminal

SHORT = ("--prompt-tokens", "16", "--output-tokens", "6")


def run(*arguments: str, environment: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "headrace", "bench", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )


def json_of(*arguments: str, environment: dict[str, str] | None = None) -> dict[str, Any]:
    done = run(*arguments, "--json", environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_real_server_end_to_end(remote: dict[str, str], tmp_path: Path):
    plot, out = tmp_path / "load.svg", tmp_path / "report.json"
    done = run(
        "serve", *SHORT, "--concurrency", "1", "3", "--goodput", "e2el:60000", "--plot", str(plot), "--out", str(out),
        environment=remote,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert "| concurrency " in done.stdout
    assert "| TTFT ms, p50 " in done.stdout
    report = json.loads(out.read_text())
    assert (report["schema"], report["model"]) == ("headrace.bench.serve/1", "smol")
    assert (report["dataset"]["form"], report["dataset"]["lengths"]) == ("ids", "exact")
    for level, requests in zip(report["levels"], (4, 9), strict=True):
        assert (level["completed"], level["failed"]) == (requests, 0)
        assert (level["prompt_tokens"], level["output_tokens"]) == (16 * requests, 6 * requests)
        assert (level["unexpected_prompt_lengths"], level["unexpected_output_lengths"]) == (0, 0)
        assert level["output_tokens_counted_by"] == {"usage": requests}
        assert level["goodput"]["requests"] == requests
        assert 0 < level["ttft"]["p50"] < level["e2el"]["p50"]
    ElementTree.fromstring(plot.read_text())


def test_every_way_to_ask_a_real_server(remote: dict[str, str], tmp_path: Path):
    exact = ("--form", "text", "--requests", "4", "--concurrency", "2")
    [level] = json_of("serve", *SHORT, *exact, environment=remote)["levels"]
    assert (level["prompt_tokens"], level["unexpected_prompt_lengths"]) == (4 * 16, 0)
    shared = ("--dataset", "shared-prefix", "--prefix-tokens", "32", "--prefixes", "2", "--rate", "50")
    [level] = json_of("serve", *SHORT, *shared, "--requests", "6", environment=remote)["levels"]
    assert (level["completed"], level["prompt_tokens"], level["unexpected_prompt_lengths"]) == (6, 6 * 48, 0)
    path = tmp_path / "talks.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 3}\n"Once"\n')
    report = json_of("serve", "--file", str(path), "--endpoint", "chat", *exact, environment=remote)
    assert report["levels"][0]["output_tokens"] == 2 * 3 + 2 * 64


def test_on_a_terminal_there_is_a_bar():
    with ClockServer(Behaviour(first=0.6)) as server:
        arguments = ("bench", "serve", "--url", server.url, "--concurrency", "2", "--requests", "4")
        with on_terminal(*arguments) as terminal:
            assert terminal.exit_code() == 0
    assert "4/4" in terminal.screen or "2/4" in terminal.screen
    assert "| output tokens/s " in terminal.screen


def test_ctrl_c_shows_what_was_measured():
    endless = ("--concurrency", "2", "4", "--requests", "20000", "--warmup", "0", "--prompt-tokens", "16")
    with ClockServer(Behaviour(first=0.02, gap=0.001)) as server:
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace", "bench", "serve", "--url", server.url, "--json", *endless],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        with process:
            deadline = time.monotonic() + 60
            while len(server.bodies) < 20:
                assert time.monotonic() < deadline
                time.sleep(0.01)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, b"")
    report = json.loads(out)
    assert report["interrupted"] is True
    [level] = report["levels"]
    assert level["interrupted"] is True
    assert level["completed"] >= 16
    assert 1 <= level["cancelled"] <= 2
    assert level["failed"] == 0


def test_a_server_without_a_tokenizer():
    with ClockServer(Behaviour(tokenizes=False)) as server:
        done = run("serve", "--url", server.url, "--concurrency", "1", "--requests", "2", *SHORT)
    assert (done.returncode, done.stderr) == (0, "")
    assert "form text, lengths assumed" in done.stdout
    assert "a word of a prompt is assumed to be one token" in done.stdout
    assert all(len(body["prompt"].split()) == 16 for body in server.bodies)


def test_levels_without_an_answer_are_a_failure():
    with ClockServer(Behaviour(status=503)) as server:
        done = run("serve", "--url", server.url, "--concurrency", "2", "--warmup", "0")
        assert done.returncode == 1
        assert "6 failed (http 503), the first: out of order" in done.stdout
        done = run("serve", "--url", server.url, "--concurrency", "2")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "headrace: out of order\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("--rate", "fast"), 2, "--rate must be a number"),
        (("--rate", "-1"), 2, "A rate must be above 0"),
        (("--rate", "1", "--concurrency", "1", "2"), 2, "--rate takes one --concurrency"),
        (("--concurrency", "0"), 2, "concurrency must be at least 1"),
        (("--concurrency", "many"), 2, "--concurrency"),
        (("--requests", "0"), 2, "requests must be at least 1"),
        (("--warmup", "-1"), 2, "--warmup must be at least 0"),
        (("--timeout", "0"), 2, "--timeout must be above 0"),
        (("--goodput", "ttft"), 2, "--goodput must be NAME:MILLISECONDS"),
        (("--extra-body", "[1]"), 2, "--extra-body must be a JSON object"),
        (("--plot", "load.png"), 2, "ends in .svg"),
        (("--out", "/nowhere/at/all.json"), 2, "there is no folder /nowhere/at"),
        (("--url", "localhost:8000"), 2, "must begin with http://"),
        (("--dataset", "file"), 2, "--dataset file and --file PATH belong together"),
        (("--prompt-tokens", "0"), 2, "1 token at least"),
        (("--prompt-token", "9"), 2, "--prompt-token"),
        (("--model", "another"), 1, "/v1/models for what is served"),
        (("--api-key", "wrong"), 1, "Set HEADRACE_API_KEY"),
        (("--endpoint", "chat", "--form", "ids"), 2, "chat takes no token ids"),
        (("--tokenizer", "nonesuch"), 1, "nonesuch"),
    ],
)
def test_errors_have_a_hint_and_no_traceback(
    remote: dict[str, str], arguments: tuple[str, ...], code: int, message: str
):
    done = run("serve", *arguments, environment=remote)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("headrace: ")
    assert message in done.stderr


def test_nobody_there():
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        done = run("serve", "--url", f"http://127.0.0.1:{unheard.getsockname()[1]}")
    assert done.returncode == 1
    assert "Nobody answers at" in done.stderr


def test_without_a_server(smollm2_path: Path, tmp_path: Path):
    out = tmp_path / "latency.json"
    small = ("--prompt-tokens", "8", "--output-tokens", "4", "--max-model-len", "64")
    done = run(
        "latency",
        str(smollm2_path),
        *small,
        "--batch-size",
        "2",
        "--iterations",
        "2",
        "--warmup",
        "0",
        "--out",
        str(out),
    )
    assert done.returncode == 0, done.stderr
    assert "| latency ms, p50 " in done.stdout
    report = json.loads(out.read_text())
    assert (report["schema"], report["output_tokens"]) == ("headrace.bench.latency/1", 16)
    done = run("throughput", str(smollm2_path), *small, "--requests", "5", "--dtype", "float32", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["output_tokens"] == 20
    done = run("throughput", str(smollm2_path), "--prompt-tokens", "100", "--max-model-len", "64")
    assert (done.returncode, done.stdout) == (2, "")
    assert "64" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("latency", "--batch-size", "0"), "at least 1"),
        (("latency", "--dtype", "float8"), "--dtype"),
        (("throughput", "--requests", "0"), "at least 1"),
        (("throughput", "--range-ratio", "1"), "below 1"),
        (("throughput", "--out", "/nowhere/at/all.json"), "there is no folder"),
        (("latency", "--max-model-length", "5"), "--max-model-length"),
    ],
)
def test_flags_that_make_no_sense_are_refused_before_a_model_is_loaded(arguments: tuple[str, ...], message: str):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
    assert "Traceback" not in done.stderr
