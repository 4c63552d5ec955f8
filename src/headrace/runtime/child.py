"""What runs in an engine process: `python -m headrace.runtime.child DESCRIPTOR`."""

from __future__ import annotations

import gc
import logging
import os
import select
import signal
import socket
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING

from headrace.core.request import StepOutput
from headrace.runtime.frames import Frames, frame
from headrace.runtime.loading import Loader
from headrace.runtime.messages import (
    FromEngines,
    Hello,
    Load,
    LoadFailed,
    Loading,
    Ready,
    Stepped,
    Stop,
    ToEngines,
    Unload,
    decode_to_engines,
    encode,
)
from headrace.runtime.turns import EngineTurns

if TYPE_CHECKING:
    from headrace.engine import AnyEngine, Progress

_PIECE = 1 << 16


def main(descriptor: int) -> int:
    return run_child(descriptor, _load_engine)


def run_child(descriptor: int, load_engine: Callable[[Load, Progress], AnyEngine]) -> int:
    """Serve the parent at the other end of this socket until it says stop or is gone. Returns the exit code.

    `load_engine` is called in another thread, and may be while engines run.
    """
    # The parent decides when this process ends: a Ctrl-C or a group-wide SIGTERM lets running requests finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="headrace-parent-watch", daemon=True).start()
    with socket.socket(fileno=descriptor) as connected:
        try:
            _Engines(_Parent(connected), load_engine).run()
        except ConnectionError:
            return 1  # the parent is gone
    return 0


class _Parent:
    """The socket to the parent, read and written by the engines' thread, which waits here when it has nothing to do."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._frames = Frames()
        self._woken, self._waker = os.pipe()

    def send(self, message: FromEngines) -> None:
        """Waits while the parent is more than the socket's buffer behind. Raises `ConnectionError` if it is gone."""
        self._socket.sendall(frame(encode(message)))

    def receive(self, wait: bool) -> list[ToEngines]:
        """What has arrived; with `wait` something must have, or `wake` been called. A parent that is gone says stop."""
        if wait:
            ready, _, _ = select.select([self._socket.fileno(), self._woken], [], [])
            if self._woken in ready:
                os.read(self._woken, _PIECE)
        messages: list[ToEngines] = []
        while True:
            try:
                data = self._socket.recv(_PIECE, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return messages
            if not data:
                return [*messages, Stop()]
            messages += map(decode_to_engines, self._frames.feed(data))

    def wake(self) -> None:
        """End a `receive` that waits; for other threads."""
        os.write(self._waker, b"\0")


class _Engines:
    """The engines of this process: those that run, and those that are being loaded."""

    def __init__(self, parent: _Parent, load_engine: Callable[[Load, Progress], AnyEngine]) -> None:
        self._parent = parent
        self._loader = Loader(load_engine, parent.wake)
        self._loading: set[int] = set()
        self._turns = EngineTurns(self._send)

    def run(self) -> None:
        """Until the parent says stop. Raises `ConnectionError` if it is gone."""
        while True:
            for message in self._parent.receive(wait=not self._turns.has_work):
                match message:
                    case Hello(log_level=level):
                        logging.basicConfig(level=level, format="%(levelname)s %(asctime)s %(name)s: %(message)s")
                    case Load(engine=number):
                        self._loading.add(number)
                        self._loader.load(message)
                    case Unload(engine=number):
                        self._loading.discard(number)
                        self._turns.remove(number)
                    case Stop():
                        return
                    case _:
                        self._turns.take(message)
            while (news := self._loader.take()) is not None:
                self._hear(news)
            self._turns.step()

    def _hear(self, news: Loading | LoadFailed | tuple[int, AnyEngine]) -> None:
        match news:
            case Loading():
                self._parent.send(news)
            case LoadFailed(engine=number):
                self._loading.discard(number)
                self._parent.send(news)
            case (number, engine) if number in self._loading:
                self._loading.discard(number)
                self._turns.add(number, engine)
                gc.freeze()  # what is there now stays: looking through it for garbage would hold up a step for 0.1 s
                self._parent.send(Ready(number, engine.info))

    def _send(self, number: int, output: StepOutput) -> None:
        self._parent.send(Stepped(number, output))


def _load_engine(load: Load, progress: Progress) -> AnyEngine:
    from headrace.engine import load_engine  # importing torch takes seconds; by now the parent is connected

    return load_engine(load.model_path, load.config, progress, memory_share=load.memory_share)


def _end_with_parent() -> None:
    """Ends this process when the parent is gone, however it went: the pipe on standard input closes."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
