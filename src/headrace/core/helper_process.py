"""A process for work that may take any time or memory: it is asked one thing at a time, and can be killed."""

from __future__ import annotations

import contextlib
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

_HEAD = 4
"""Bytes in front of a message that say how long it is."""

_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "LANG", "LC_ALL", "TZ")
"""What of the environment a helper gets: nothing that could be a secret."""


class HelperProcess:
    """The end that asks, from any thread, one at a time; `kill` may be called beside that. It depends on no event loop,
    and so can be left to end when there is none any more.
    """

    def __init__(self, module: str) -> None:
        """Run a module whose `main` loops over `tasks()`."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._tasks = self._process.stdin
        self._answers = self._process.stdout

    @property
    def is_alive(self) -> bool:
        return self._process.poll() is None

    def ask(self, message: bytes) -> bytes:
        """Waits for the answer. Raises `EOFError` if the process dies of it."""
        try:
            _write(self._tasks, message)
        except OSError:
            raise EOFError from None
        return _read(self._answers)

    def kill(self) -> None:
        """Any number of calls. Whoever waits for an answer hears that there is none."""
        self._process.kill()
        self._process.wait()


def tasks() -> Iterator[bytes]:
    """In the process itself: its tasks as they come; ends when nobody is left to ask."""
    with contextlib.suppress(EOFError):
        while True:
            yield _read(sys.stdin.buffer)


def answer(message: bytes) -> None:
    """What came of the task that was asked last."""
    _write(sys.stdout.buffer, message)


def bound_memory(most: int) -> None:
    """From now on this process gets no more than `most` further bytes, writes no file and dumps no core."""
    _limit(resource.RLIMIT_FSIZE, 0)
    _limit(resource.RLIMIT_CORE, 0)
    with contextlib.suppress(OSError):  # systems without /proc do not bound the address space either
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + most)


def bound_cpu_time(seconds: float) -> None:
    """From now on. A process that uses more is killed by the system, should nobody else be there to do so."""
    _, hard = resource.getrlimit(resource.RLIMIT_CPU)
    resource.setrlimit(resource.RLIMIT_CPU, (int(time.process_time() + seconds) + 2, hard))


def _write(stream: IO[bytes], message: bytes) -> None:
    stream.write(len(message).to_bytes(_HEAD, "little") + message)
    stream.flush()


def _read(stream: IO[bytes]) -> bytes:
    """A message. Raises `EOFError` if it does not come, or not to its end."""
    head = stream.read(_HEAD)
    size = int.from_bytes(head, "little")
    message = stream.read(size)
    if len(head) < _HEAD or len(message) < size:
        raise EOFError
    return message


def _limit(what: int, most: int) -> None:
    resource.setrlimit(what, (most, most))
