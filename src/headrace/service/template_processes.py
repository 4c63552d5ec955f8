"""Helper processes for chat templates that nobody vouches for: each renders one at a time, and dies if it hangs."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading

from headrace.core.errors import BadRequest, EngineError
from headrace.runtime.frames import frame
from headrace.service.template_helper import READY, RenderOutcome, RenderTask
from headrace.service.workers import Workers

_MOST = 2
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
"""What of the environment a helper gets: nothing that could be a secret."""


class TemplateProcesses:
    """Started when the first task comes; idle ones are kept. Tasks beyond their number wait in order."""

    def __init__(self, timeout: float) -> None:
        self._timeout = timeout
        self._places = asyncio.Semaphore(_MOST)
        self._workers = Workers("headrace-request-template")
        self._idle: list[_Helper] = []

    async def render(self, task: RenderTask) -> str:
        """Raises `BadRequest` if the template refuses, fails, or takes too much time or memory."""
        async with self._places:
            helper = self._idle.pop() if self._idle else _Helper()
            try:
                await self._workers.run(helper.start)
                async with asyncio.timeout(self._timeout):
                    answer = await self._workers.run(helper.ask, task.to_bytes())
            except TimeoutError:
                helper.kill()
                raise BadRequest(
                    f"The chat template did not finish within {self._timeout:g} s.", parameter="chat_template"
                ) from None
            except _Gone:
                helper.kill()
                raise BadRequest(
                    "The chat template took more memory or time than it may have.", parameter="chat_template"
                ) from None
            except BaseException:
                helper.kill()
                raise
            self._idle.append(helper)
        outcome = RenderOutcome.from_bytes(answer)
        if outcome.prompt is None:
            raise BadRequest(outcome.refusal, parameter=outcome.parameter)
        return outcome.prompt

    def close(self) -> None:
        """End the idle processes."""
        self._workers.close()
        while self._idle:
            self._idle.pop().kill()


class _Gone(Exception):
    """The process has ended."""


class _Helper:
    """One process. `start` and `ask` are called in threads, one at a time; `kill` may be called meanwhile."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._unwanted = False
        self._lock = threading.Lock()

    def start(self) -> None:
        """Once; later calls do nothing. Raises `EngineError` if it does not come up, which is no template's fault."""
        with self._lock:
            if self._process is not None or self._unwanted:
                return
            self._process = subprocess.Popen(
                [sys.executable, "-m", "headrace.service.template_helper"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            )
        try:
            ready = self._read(self._process)
        except _Gone:
            raise EngineError("The process for chat templates of requests cannot be started.") from None
        assert ready == READY

    def ask(self, message: bytes) -> bytes:
        """Raises `_Gone` if it ends before it has answered."""
        process = self._process
        if process is None:
            raise _Gone
        assert process.stdin is not None
        try:
            process.stdin.write(frame(message))
            process.stdin.flush()
        except OSError:
            raise _Gone from None
        return self._read(process)

    def kill(self) -> None:
        """Whoever waits for an answer hears that it is gone."""
        with self._lock:
            self._unwanted = True
            if self._process is None:
                return
        self._process.kill()
        self._process.wait()

    def _read(self, process: subprocess.Popen[bytes]) -> bytes:
        assert process.stdout is not None
        head = process.stdout.read(4)
        body = process.stdout.read(int.from_bytes(head, "little"))
        if len(head) < 4 or len(body) < int.from_bytes(head, "little"):
            raise _Gone
        return body
