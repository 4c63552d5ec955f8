"""A server from its first line to its exit code, with a real model in a real engine process."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

FOREVER = {"model": "smollm2", "prompt": "Once", "max_tokens": 4000, "ignore_eos": True, "temperature": 0}


class Server:
    """A running `headrace serve` and what it prints (standard output and error together)."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.lines: list[str] = []

    def wait_for(self, pattern: str) -> re.Match[str]:
        """The next line with the pattern in it."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(line.rstrip("\n"))
            if match := re.search(pattern, line):
                return match
        pytest.fail(f"{pattern!r} never came:\n" + "\n".join(self.lines))

    def engine_pid(self) -> int | None:
        """The child process, once there is one."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children")
        if not children.exists():
            pytest.skip("this system does not list a process's children")
        return next(map(int, children.read_text().split()), None)

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self) -> int:
        assert self.process.stdout is not None
        self.lines += self.process.stdout.read().splitlines()
        return self.process.wait()


@contextmanager
def served(model: Path, *flags: str) -> Iterator[Server]:
    command = [sys.executable, "-m", "headrace", "serve", str(model), "--served-model-name", "smollm2", *flags]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            yield Server(process)
        finally:
            process.kill()


READY = r"^Ready: (http\S+) .*serves smollm2 .*KV cache (\d+) tokens, in (\d+\.\d) s$"


def test_from_loading_to_a_graceful_end(smollm2_path: Path):
    """503 while loading, one ready line, a curl line that works, statistics; SIGTERM lets a stream finish."""
    flags = ("--port", "0", "--host", "0.0.0.0", "--log-stats-interval", "0.3")
    with served(smollm2_path, *flags, "--disable-access-log-for-endpoints", "/health") as server:
        server.wait_for("WARNING .*Whoever reaches 0.0.0.0 can use this server: no --api-key is set")
        ready = server.wait_for(READY)
        url, capacity = ready[1], int(ready[2])
        assert url.startswith("http://127.0.0.1:")
        assert capacity >= 8192
        curl = shlex.split(server.wait_for("^curl .*")[0])
        assert curl[1] == f"{url}/v1/chat/completions"
        body = json.loads(curl[curl.index("-d") + 1]) | {"max_tokens": 3}
        with httpx.Client(base_url=url, timeout=300) as client:
            assert client.get("/health").status_code == 200
            answer = client.post("/v1/chat/completions", json=body).json()
            assert answer["choices"][0]["message"]["content"]
            server.wait_for(r"generation \d+\.\d tokens/s, running \d+, waiting \d+, KV cache \d+\.\d%, prefix hits")

            stream = {**FOREVER, "max_tokens": 12, "stream": True}
            with client.stream("POST", "/v1/completions", json=stream) as response:
                events = response.iter_lines()
                assert next(events).startswith("data: {")
                server.signal(signal.SIGTERM)
                rest = [line for line in events if line]
            assert rest[-1] == "data: [DONE]"
            assert '"finish_reason":"length"' in "".join(rest).replace(" ", "")
        assert server.exit_code() == 0
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{url}/health")
    assert "Traceback" not in "\n".join(server.lines)
    assert not any("GET /health" in line for line in server.lines)
    assert any("POST /v1/completions" in line for line in server.lines)


def test_a_unix_socket_with_a_key_and_no_patience(smollm2_path: Path, tmp_path: Path):
    """`--shutdown-timeout 0`: SIGINT ends a running request with an error that its caller sees."""
    path = tmp_path / "headrace.sock"
    with served(smollm2_path, "--uds", str(path), "--api-key", "secret", "--shutdown-timeout", "0") as server:
        assert server.wait_for(READY)[1] == "http://localhost"
        curl = server.wait_for("^curl .*")[0]
        assert f"--unix-socket {path}" in curl
        assert "secret" not in curl
        transport = httpx.HTTPTransport(uds=str(path))
        with httpx.Client(transport=transport, base_url="http://localhost", timeout=300) as client:
            assert client.get("/v1/models").status_code == 401
            client.headers["Authorization"] = "Bearer secret"
            assert client.get("/v1/models").json()["data"][0]["id"] == "smollm2"
            with client.stream("POST", "/v1/completions", json={**FOREVER, "stream": True}) as response:
                events = response.iter_lines()
                next(events)
                server.signal(signal.SIGINT)
                rest = "".join(events)
            assert "error" in rest
        assert server.exit_code() == 0
    assert not path.exists()
    assert "Traceback" not in "\n".join(server.lines)


def test_a_second_interrupt_ends_at_once(smollm2_path: Path):
    with served(smollm2_path, "--port", "0", "--shutdown-timeout", "600") as server:
        url = server.wait_for(READY)[1]
        with httpx.stream("POST", f"{url}/v1/completions", json={**FOREVER, "stream": True}, timeout=300) as response:
            next(response.iter_lines())
            server.signal(signal.SIGINT)
            server.wait_for("Shutting down")
            assert server.process.poll() is None
            server.signal(signal.SIGINT)
            assert server.exit_code() == 0
    assert "Traceback" not in "\n".join(server.lines)


def test_while_loading_it_answers_503_and_stops_on_request(smollm2_path: Path, tmp_path: Path):
    """A stale socket of a killed server is replaced; the model is not waited for."""
    path = tmp_path / "headrace.sock"
    with served(smollm2_path, "--uds", str(path)) as first:
        first.wait_for("Started server process")
        first.process.kill()
    assert path.exists()
    with served(smollm2_path, "--uds", str(path)) as server:
        server.wait_for("Started server process")
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(path)), base_url="http://localhost") as client:
            assert client.get("/health").status_code == 503
            refused = client.post("/v1/completions", json=FOREVER)
            assert refused.status_code == 503
            assert refused.json()["error"]["message"] == "The model is still being loaded."
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    assert not any(line.startswith("Ready") for line in server.lines)
    assert "Traceback" not in "\n".join(server.lines)


def test_a_stop_signal_before_anything_is_up(smollm2_path: Path, tmp_path: Path):
    """Sent as soon as the engine's process is there, while this one still imports the web framework."""
    with served(smollm2_path, "--port", "0") as server:
        while server.engine_pid() is None:
            assert server.process.poll() is None
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0
    assert "Traceback" not in "\n".join(server.lines)


def test_a_dead_engine_ends_streams_with_an_error_and_comes_back(smollm2_path: Path):
    with served(smollm2_path, "--port", "0") as server:
        url = server.wait_for(READY)[1]
        engine = server.engine_pid()
        assert engine is not None
        with httpx.Client(base_url=url, timeout=300) as client:
            with client.stream("POST", "/v1/completions", json={**FOREVER, "stream": True}) as response:
                events = response.iter_lines()
                next(events)
                os.kill(engine, signal.SIGKILL)
                rest = [line for line in events if line]
            assert "The engine process died (signal 9" in rest[-2]
            assert rest[-1] == "data: [DONE]"
            assert client.get("/health").status_code == 503
            refused = client.post("/v1/completions", json=FOREVER)
            assert refused.status_code == 503
            assert "being started again" in refused.json()["error"]["message"]
            server.wait_for("The engine is back")
            assert client.get("/health").status_code == 200
            answer = client.post("/v1/completions", json={**FOREVER, "max_tokens": 3})
            assert answer.json()["usage"]["completion_tokens"] == 3
        server.signal(signal.SIGTERM)
        assert server.exit_code() == 0


def test_a_damaged_model_is_an_error_and_exit_code_1(smollm2_path: Path, tmp_path: Path):
    damaged = tmp_path / "damaged.gguf"
    with smollm2_path.open("rb") as whole:
        damaged.write_bytes(whole.read(8_000_000))
    with served(damaged, "--port", "0") as server:
        assert server.exit_code() == 1
    assert server.lines[-1].startswith("headrace: ")
    assert "damaged.gguf" in server.lines[-1]
    assert "Traceback" not in "\n".join(server.lines)
