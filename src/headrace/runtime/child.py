"""What runs in the engine process: `python -m headrace.runtime.child ADDRESS`."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading

import zmq

from headrace.core.errors import StartupError
from headrace.core.request import StepOutput
from headrace.runtime.loop import Command, run_engine
from headrace.runtime.messages import Load, LoadFailed, Loading, Ready, Stepped, decode_to_engine, encode


def main(address: str) -> int:
    # The parent decides when this process ends: a Ctrl-C or a group-wide SIGTERM lets running requests finish first.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, name="headrace-parent-watch", daemon=True).start()

    socket = zmq.Context.instance().socket(zmq.PAIR)
    socket.set(zmq.SNDHWM, 0)
    socket.set(zmq.RCVHWM, 0)
    socket.connect(address)

    from headrace.engine import Engine  # after connecting: importing torch takes seconds

    load = decode_to_engine(socket.recv())
    assert isinstance(load, Load)
    logging.basicConfig(level=load.log_level, format="%(levelname)s %(asctime)s %(name)s: %(message)s")

    def progress(done: int, total: int) -> None:
        socket.send(encode(Loading(done, total)))

    try:
        engine = Engine.load(load.model_path, load.config, progress)
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


def _end_with_parent() -> None:
    """Ends this process when the parent is gone, however it went: the pipe on standard input closes."""
    while os.read(sys.stdin.fileno(), 1):
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
