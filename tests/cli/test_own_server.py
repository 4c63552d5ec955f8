"""A server for one command: it is there while its parent is, and no longer, however that ends."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headrace.cli.own_server import own_server
from headrace.core.errors import StartupError

PARENT = """
import asyncio, sys
from headrace.cli.own_server import own_server

async def main():
    async with own_server([sys.argv[1], "--max-model-len", "512"]) as path:
        print(path, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


def answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


def test_it_ends_with_its_parent(smollm2_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, str(smollm2_path)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        path = Path(parent.stdout.readline().strip())
        assert answers(path)
        parent.kill()
        parent.communicate(timeout=60)
    deadline = time.monotonic() + 30
    while answers(path):
        assert time.monotonic() < deadline, "the server outlives its parent"
        time.sleep(0.05)


def test_one_that_cannot_start_says_so(capfd: pytest.CaptureFixture[str]) -> None:
    async def start() -> None:
        async with own_server(["/no/such/model.gguf"]):
            pass

    with pytest.raises(StartupError, match="exit code 1 before it was ready"):
        asyncio.run(start())
    assert "/no/such/model.gguf" in capfd.readouterr().err
