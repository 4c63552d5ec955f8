"""The example of Headrace's own client does what its first lines promise."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from running_server import Server

EXAMPLE = Path(__file__).parents[2] / "examples" / "python_client.py"


def test_python_client(example_server: Server):
    command = [sys.executable, str(EXAMPLE), "Name a river.", "--url", example_server.url]
    out = subprocess.run(command, capture_output=True, text=True, check=True, env=os.environ).stdout
    lines = out.splitlines()
    assert lines[0] == "Models: smol, facebook/opt-125m, Qwen/Qwen3-0.6B"
    assert lines[1].startswith("Answer: ")
    assert any(line.startswith("Token ids: [") for line in lines)
    assert any(line.startswith("Job: COMPLETED") and "Paris" in line for line in lines)
    assert out.count("One ") >= 3


def test_nobody_there():
    command = [sys.executable, str(EXAMPLE), "--url", "http://127.0.0.1:1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "Nobody answers at http://127.0.0.1:1. Start a server with: headrace serve\n"
