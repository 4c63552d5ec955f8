"""The examples of the job API, and the HTTP traffic of the user's own document, against the real server."""

from __future__ import annotations

import json
import re
import runpy
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import requests
import runpod
from running_server import Server

EXAMPLES = Path(__file__).parents[2] / "examples"
HEADERS = {"Authorization": "Bearer RUNPOD_API_KEY", "Content-Type": "application/json"}
QUANTUM = {
    "input": {
        "messages": [{"role": "user", "content": "Explain quantum computing."}],
        "sampling_params": {"temperature": 0.7, "max_tokens": 200},
    }
}


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`run("name.py", "--flag", …)` runs an example and returns what it has printed."""

    def runner(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        monkeypatch.setattr(runpod, "endpoint_url_base", None)
        monkeypatch.setattr(runpod, "api_key", None)
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return runner


def test_runpod_requests(run, example_server: Server) -> None:
    out = run("runpod_requests.py", "--base-url", f"{example_server.url}/v2/default", "--max-tokens", "20")
    assert re.match(r"Job: \S+\nCOMPLETED after \d+ \+ \d+ ms: ['\"]", out)
    assert re.search(r"\nWaited for: ['\"].+['\"]\nStreamed: ", out)
    assert re.search(r"\[\d+ tokens in, \d+ tokens out\]\n$", out)


def test_runpod_sdk(run, example_server: Server) -> None:
    out = run("runpod_sdk.py", "--base-url", f"{example_server.url}/v2", "--endpoint", "facebook--opt-125m")
    waited, streamed = re.search(r"Waited for: (.+?)\nJob \S+: (.+?) \[COMPLETED\]\n", out, re.DOTALL).groups()
    assert "Paris" in waited
    assert "Paris" in streamed
    assert "Cancelled: CANCELLED\n" in out
    assert len(re.findall(r"^  ['\"].+['\"]$", out, re.MULTILINE)) == 2


@contextmanager
def answering(*statuses: int | None) -> Iterator[str]:
    """A server that answers with these, one after the other; None closes the connection."""
    left = list(statuses)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            if (status := left.pop(0)) is None:
                self.close_connection = True
                return
            self.send_response(status)
            self.send_header("Content-Length", "9")
            self.end_headers()
            self.wfile.write(b'{"id": 1}')

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}/run"
        server.shutdown()
        thread.join()
    assert not left


def test_the_examples_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    example = runpy.run_path(str(EXAMPLES / "runpod_requests.py"))
    send = example["send_request"]
    for statuses, expected in (((200,), []), ((500, 503, 200), [1, 2]), ((429, None, 200), [5, 2])):
        with answering(*statuses) as url:
            pauses.clear()
            assert send(url, HEADERS, QUANTUM) == {"id": 1}
            assert pauses == expected
    with answering(500, 429, None) as url, pytest.raises(example["GaveUp"]):
        send(url, HEADERS, QUANTUM)
    with answering(400) as url, pytest.raises(requests.HTTPError):
        send(url, HEADERS, QUANTUM)


def test_the_guides_asynchronous_request(example_server: Server) -> None:
    endpoint = f"{example_server.url}/v2/ENDPOINT_ID".replace("ENDPOINT_ID", "default")
    job_id = requests.post(f"{endpoint}/run", headers=HEADERS, json=QUANTUM, timeout=60).json()["id"]
    status = requests.get(f"{endpoint}/status/{job_id}", headers={"Authorization": "Bearer RUNPOD_API_KEY"}, timeout=60)
    assert status.json()["id"] == job_id
    assert status.json()["status"] in ("IN_QUEUE", "IN_PROGRESS", "COMPLETED")


def test_the_guides_synchronous_requests(example_server: Server) -> None:
    endpoint = f"{example_server.url}/v2/default"
    messages = [
        {"role": "system", "content": "You are a helpful assistant."},
        {"role": "user", "content": "What is the capital of France?"},
    ]
    sampling = {"temperature": 0.7, "max_tokens": 50}
    for given in (
        {"messages": messages, "sampling_params": {"temperature": 0.7, "max_tokens": 100}},
        {"prompt": "The capital of France is", "sampling_params": sampling},
        {"prompt": "The capital of France is", "sampling_params": sampling, "apply_chat_template": True},
    ):
        job = requests.post(f"{endpoint}/runsync", headers=HEADERS, json={"input": given}, timeout=300).json()
        assert job["status"] == "COMPLETED"
        (output,) = job["output"]
        assert output["choices"][0]["tokens"][0]
        assert 1 <= output["usage"]["output"] <= 100


def test_the_guides_stream(example_server: Server) -> None:
    endpoint = f"{example_server.url}/v2/default"
    body = {
        "input": {
            "prompt": "Write a short story about a robot.",
            "sampling_params": {"temperature": 0.8, "max_tokens": 500},
            "stream": True,
        }
    }
    job_id = requests.post(f"{endpoint}/run", headers=HEADERS, json=body, timeout=60).json()["id"]
    lines = []
    url = f"{endpoint}/stream/{job_id}"
    with requests.get(url, headers={"Authorization": "Bearer RUNPOD_API_KEY"}, stream=True, timeout=300) as r:
        for line in r.iter_lines():
            if line:
                lines.append(json.loads(line))
    assert lines[-1]["status"] == "COMPLETED"
    assert all(line["status"] == "IN_PROGRESS" for line in lines[:-1])
    told = [part["output"] for line in lines for part in line["stream"]]
    assert told == requests.get(f"{endpoint}/status/{job_id}", headers=HEADERS, timeout=60).json()["output"]
    assert 1 <= told[-1]["usage"]["output"] <= 500


def test_every_documented_parameter_is_taken(example_server: Server) -> None:
    sampling = {
        "max_tokens": 4,
        "temperature": 0.9,
        "top_p": 0.95,
        "top_k": 40,
        "stop": ["\n\n"],
        "presence_penalty": 0.1,
        "frequency_penalty": 0.1,
        "n": 2,
        "best_of": 3,
        "repetition_penalty": 1.1,
        "min_p": 0.01,
        "min_tokens": 1,
        "use_beam_search": False,
        "length_penalty": 1.0,
        "early_stopping": False,
        "stop_token_ids": [2],
        "ignore_eos": True,
        "skip_special_tokens": True,
        "spaces_between_special_tokens": True,
        "truncate_prompt_tokens": 3,
    }
    given = {
        "prompt": "Once upon a time there was",
        "sampling_params": sampling,
        "stream": True,
        "max_batch_size": 2,
        "min_batch_size": 1,
        "batch_size_growth_factor": 2,
    }
    endpoint = f"{example_server.url}/v2/default"
    job = requests.post(f"{endpoint}/runsync", headers=HEADERS, json={"input": given}, timeout=300).json()
    assert job["status"] == "COMPLETED", job
    assert job["output"][-1]["usage"]["input"] == 3
    assert all(len(chunk["choices"]) == 2 for chunk in job["output"])
