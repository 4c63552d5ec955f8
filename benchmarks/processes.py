"""Servers as processes: started, waited for, weighed and stopped."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

POLL_SECONDS = 0.02
START_SECONDS = 900
"""vLLM's CPU build takes minutes."""
STOP_SECONDS = 30


class StartFailed(Exception):
    """A server that ended, or never answered."""


@dataclass(frozen=True, slots=True)
class Running:
    """A server that answers: `ready_seconds` from the start of the process to the first 200 of /health."""

    process: subprocess.Popen[bytes]
    url: str
    ready_seconds: float

    def memory(self) -> int:
        """Bytes, as PSS (a page shared by n processes counts 1/n for each), of all processes of the server."""
        return sum(pss_bytes(pid) for pid in descendants(self.process.pid))


@contextmanager
def started(
    command: Sequence[str | Path], url: str, log: Path, env: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """Run a server that will listen at `url` while the block lasts; its output goes to `log`.

    Raises `StartFailed` if it does not get ready, or if something answers at `url` already.
    """
    if _healthy(url):
        raise StartFailed(f"{url} is taken by another server")
    with log.open("wb") as output:
        began = time.monotonic()
        process = subprocess.Popen(
            list(map(str, command)),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, **(env or {})},
            start_new_session=True,
        )
    try:
        while not _healthy(url):
            if process.poll() is not None:
                raise StartFailed(f"{command[0]} ended with code {process.returncode}, see {log}")
            if time.monotonic() - began > START_SECONDS:
                raise StartFailed(f"{command[0]} was not ready after {START_SECONDS} s, see {log}")
            time.sleep(POLL_SECONDS)
        yield Running(process, url, time.monotonic() - began)
    finally:
        _stop(process)


def _healthy(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
            return response.status == 200
    except OSError:  # URLError, refused connections and timeouts among them
        return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    with suppress(subprocess.TimeoutExpired):
        process.wait(STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)  # what it left behind, if anything
    process.wait()


def descendants(root: int) -> list[int]:
    """`root` and everything it started."""
    found = [root]
    for pid in found:
        for children in Path(f"/proc/{pid}/task").glob("*/children"):
            found += [int(child) for child in children.read_text().split()]
    return found


def pss_bytes(pid: int) -> int:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"/proc/{pid}/smaps_rollup has no Pss line")
