"""What runs in the engine process: `python -m headrace.runtime.child DESCRIPTOR`."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.core.errors import StartupError
from headrace.core.request import StepOutput
from headrace.runtime.frames import Frames, frame
from headrace.runtime.loop import Command, run_engine
from headrace.runtime.messages import (
    FromEngine,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Stepped,
    Stop,
    ToEngine,
    decode_to_engine,
    encode,
)

if TYPE_CHECKING:
    from headrace.engine import Engine, Progress

_PIECE = 1 << 16


def main(descriptor: int) -> int:
    return run_child(descriptor, _load_engine)


def run_child(descriptor: int, load_engine: Callable[[Load, Progress], Engine]) -> int:
    """Serve the parent at the other end of this socket until it says stop or is gone. Returns the exit code."""
    # The parent decides when this process ends: a Ctrl-C or a group-wide SIGTERM lets running requests finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="headrace-parent-watch", daemon=True).start()
    with socket.socket(fileno=descriptor) as connected:
        parent = _Parent(connected)
        try:
            return _load_and_run(parent, load_engine)
        except ConnectionError:
            return 1  # the parent is gone


class _Parent:
    """The socket to the parent, read and written by the engine's thread."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._frames = Frames()

    def send(self, message: FromEngine) -> None:
        """Waits while the parent is more than the socket's buffer behind. Raises `ConnectionError` if it is gone."""
        self._socket.sendall(frame(encode(message)))

    def receive(self, wait: bool) -> list[ToEngine]:
        """What has arrived; with `wait` at least one message. A parent that is gone says stop."""
        messages: list[ToEngine] = []
        while True:
            try:
                data = self._socket.recv(_PIECE, 0 if wait and not messages else socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            if not data:
                return [*messages, Stop()]
            messages += map(decode_to_engine, self._frames.feed(data))


def _load_and_run(parent: _Parent, load_engine: Callable[[Load, Progress], Engine]) -> int:
    (load,) = parent.receive(wait=True)
    assert isinstance(load, Load)
    logging.basicConfig(level=load.log_level, format="%(levelname)s %(asctime)s %(name)s: %(message)s")
    try:
        engine = load_engine(load, lambda done, total: parent.send(Loading(done, total)))
    except StartupError as error:
        parent.send(LoadFailed(error.message))
        return 1
    gc.freeze()  # what is there now stays: looking through it for garbage would hold up a step for 0.1 s
    parent.send(Ready(engine.info))

    def receive(wait: bool) -> list[Command]:
        commands = []
        for message in parent.receive(wait):
            assert not isinstance(message, Load)
            commands.append(message)
        return commands

    def send(output: StepOutput) -> None:
        parent.send(Stepped(output))

    run_engine(engine, receive, send)
    return 0


def _load_engine(load: Load, progress: Progress) -> Engine:
    from headrace.engine import Engine  # importing torch takes seconds; by now the parent is connected

    return Engine.load(load.model_path, load.config, progress)


def _end_with_parent() -> None:
    """Ends this process when the parent is gone, however it went: the pipe on standard input closes."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
