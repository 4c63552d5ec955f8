"""What runs in the engine process: `python -m headrace.runtime.child ADDRESS`."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from headrace.core.errors import StartupError
from headrace.core.request import StepOutput
from headrace.runtime.loop import Command, run_engine
from headrace.runtime.messages import Load, LoadFailed, Loading, Ready, Stepped, decode_to_engine, encode

if TYPE_CHECKING:
    from headrace.engine import Engine, Progress

LAST_WORDS_MS = 2000
"""How long the last messages may take to reach the parent."""


def main(address: str) -> int:
    return run_child(address, _load_engine)


def run_child(address: str, load_engine: Callable[[Load, Progress], Engine]) -> int:
    """Serve the parent that listens at `address` until it says stop or is gone. Returns the exit code."""
    # The parent decides when this process ends: a Ctrl-C or a group-wide SIGTERM lets running requests finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    folder = Path(address.removeprefix("ipc://")).parent
    threading.Thread(target=_end_with_parent, args=(folder,), name="headrace-parent-watch", daemon=True).start()

    context = zmq.Context()
    try:
        socket = context.socket(zmq.PAIR)
        socket.set(zmq.SNDHWM, 0)
        socket.set(zmq.RCVHWM, 0)
        socket.connect(address)
        load = decode_to_engine(socket.recv())
        assert isinstance(load, Load)
        # A connection needs its path no longer: without it, nothing can be left behind however both sides end.
        shutil.rmtree(folder, ignore_errors=True)
        return _load_and_run(load, load_engine, socket)
    finally:
        context.destroy(linger=LAST_WORDS_MS)


def _load_and_run(load: Load, load_engine: Callable[[Load, Progress], Engine], socket: zmq.Socket[bytes]) -> int:
    logging.basicConfig(level=load.log_level, format="%(levelname)s %(asctime)s %(name)s: %(message)s")

    def progress(done: int, total: int) -> None:
        socket.send(encode(Loading(done, total)))

    try:
        engine = load_engine(load, progress)
    except StartupError as error:
        socket.send(encode(LoadFailed(error.message)))
        return 1
    socket.send(encode(Ready(engine.info)))

    def receive(wait: bool) -> list[Command]:
        commands = [decode_to_engine(socket.recv())] if wait else []
        while socket.poll(0):
            commands.append(decode_to_engine(socket.recv()))
        return commands

    def send(output: StepOutput) -> None:
        socket.send(encode(Stepped(output)))

    run_engine(engine, receive, send)
    return 0


def _load_engine(load: Load, progress: Progress) -> Engine:
    from headrace.engine import Engine  # importing torch takes seconds; by now the parent is connected

    return Engine.load(load.model_path, load.config, progress)


def _end_with_parent(folder: Path) -> None:
    """Ends this process when the parent is gone, however it went: the pipe on standard input closes."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
