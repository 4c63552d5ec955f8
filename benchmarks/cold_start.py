"""Start a server, wait for the first 200 of /health, print the seconds and the memory, and stop it.

python benchmarks/cold_start.py [--port 8000] [--runs 3] -- headrace serve smollm2 --port 8000
"""

from __future__ import annotations

import argparse
import os
import subprocess
import time
import urllib.error
import urllib.request
from pathlib import Path


def wait_healthy(url: str, process: subprocess.Popen) -> None:
    while True:
        if process.poll() is not None:
            raise SystemExit(f"the server ended with code {process.returncode}")
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5) as response:
                if response.status == 200:
                    return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.02)


def processes_of(root: int) -> list[int]:
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
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    for _ in range(args.runs):
        began = time.monotonic()
        process = subprocess.Popen(args.command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
        try:
            wait_healthy(f"http://127.0.0.1:{args.port}", process)
            seconds = time.monotonic() - began
            memory = sum(map(pss_bytes, processes_of(process.pid)))
            print(f"ready after {seconds:.2f} s, {memory / 1e6:.0f} MB PSS", flush=True)
        finally:
            process.terminate()
            process.wait()


if __name__ == "__main__":
    main()
