"""A server for one command: `headrace serve` in a process of its own that ends with its parent, however that ends.

`python -m headrace.cli.own_server FLAGS` reads a pipe whose other end only the parent has.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import httpx

from headrace.core.errors import StartupError

_QUIET = ("--log-level", "WARNING", "--uvicorn-log-level", "warning")
"""Unless the flags say otherwise, only what went wrong is of interest."""

_KEYS = ("HEADRACE_API_KEY", "VLLM_API_KEY")
"""Not for this server: the folder of its socket lets nobody else in."""

_POLL_SECONDS = 0.1
_GRACE_SECONDS = 10.0


@contextlib.asynccontextmanager
async def own_server(flags: Sequence[str]) -> AsyncIterator[Path]:
    """The Unix socket of a server that is ready. `flags`: those of `serve`, but for the socket's and the jobs'.

    Its messages go to standard error. Raises `StartupError` if it does not start; it has said why.
    """
    with tempfile.TemporaryDirectory(prefix="headrace-") as folder:
        socket = Path(folder) / "socket"
        own = ["--uds", str(socket), "--jobs-dir", f"{folder}/jobs", "--disable-uvicorn-access-log"]
        process = subprocess.Popen(
            [sys.executable, "-m", "headrace.cli.own_server", *_QUIET, *flags, *own],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name not in _KEYS},
            start_new_session=True,  # Ctrl-C is for the parent: it decides when nobody needs the server any more
        )
        try:
            await _ready(process, socket)
            yield socket
        finally:
            await asyncio.to_thread(_end, process)


async def _ready(process: subprocess.Popen[bytes], socket: Path) -> None:
    transport = httpx.AsyncHTTPTransport(uds=str(socket))
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as http:
        while process.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if (await http.get("/health")).is_success:
                    return
            await asyncio.sleep(_POLL_SECONDS)
    raise StartupError(f"the server has ended with exit code {process.returncode} before it was ready.")


def _end(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        process.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # nothing is ever written: it returns when the parent is gone
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    from headrace.cli.main import main

    threading.Thread(target=_end_with_parent, daemon=True).start()
    sys.exit(main(["serve", *sys.argv[1:]]))
