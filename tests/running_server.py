"""A real server: `headrace serve` in a process of its own, on a free port."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence

import openai


class Server:
    """A running `headrace serve`, or the server of another `command`. `log` is everything it has printed so far."""

    def __init__(
        self, *arguments: str, environment: dict[str, str] | None = None, command: Sequence[str] = ("headrace", "serve")
    ) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._state = tempfile.TemporaryDirectory(prefix="headrace-state-")  # its own jobs
        self.url = f"http://127.0.0.1:{self.port}"
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command, *arguments, "--port", str(self.port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "XDG_STATE_HOME": self._state.name, **(environment or {})},
        )
        self.log = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        for line in self.process.stdout:
            self.log += line
            if line.startswith("Ready: "):
                self._ready.set()
        self._ready.set()  # it has ended; nobody needs to wait any longer

    def wait_ready(self) -> None:
        assert self._ready.wait(120), f"not ready in time:\n{self.log}"
        assert self.process.poll() is None, f"the server has ended:\n{self.log}"

    def stop(self) -> int:
        """End it as an init system would, and return its exit code."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            code = self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join()
        self._state.cleanup()
        return code

    def client(self, **options: object) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.url}/v1", api_key="EMPTY", **{"max_retries": 0, **options})


@contextlib.contextmanager
def serving(
    *arguments: str, environment: dict[str, str] | None = None, command: Sequence[str] = ("headrace", "serve")
) -> Iterator[Server]:
    """A server that is ready, and stopped on the way out."""
    server = Server(*arguments, environment=environment, command=command)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()
