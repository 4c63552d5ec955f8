"""Start a server, wait for the first 200 of /health, print the seconds and the memory, and stop it.

python benchmarks/cold_start.py [--port 8000] [--runs 3] -- headrace serve smollm2 --port 8000
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from processes import started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()
    log = Path(tempfile.gettempdir()) / "headrace-cold-start.log"
    for _ in range(args.runs):
        with started(args.command, f"http://127.0.0.1:{args.port}", log) as server:
            print(f"ready after {server.ready_seconds:.2f} s, {server.memory() / 1e6:.0f} MB PSS", flush=True)


if __name__ == "__main__":
    main()
