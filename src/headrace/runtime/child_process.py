"""One engine process as its parent sees it: started, talked to, ended."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Sequence

from headrace.runtime.environment import engine_environment
from headrace.runtime.frames import Frames, frame
from headrace.runtime.messages import FromEngines, Hello, Stop, ToEngines, decode_from_engines, encode

LAST_WORDS_SECONDS = 0.2
"""How long a message may still arrive after the child has ended."""

END_SECONDS = 5.0
"""How long a child that has closed its socket may take to end."""


class ChildProcess:
    """A child that runs `command`, with the descriptor of its socket as the last argument, and that socket.

    Needs a running event loop. Raises `OSError` if it cannot be started.
    """

    def __init__(self, command: Sequence[str], hello: Hello) -> None:
        loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = loop.create_future()
        self._transport: asyncio.Transport | None = None
        self._socket, theirs = socket.socketpair()
        try:
            with theirs:
                # Its standard input stays open as long as this process lives: its end tells the child to end as well.
                # In a process group of its own, a Ctrl-C does not reach it before it can ignore it.
                self._process = subprocess.Popen(
                    [*command, str(theirs.fileno())],
                    stdin=subprocess.PIPE,
                    pass_fds=[theirs.fileno()],
                    env=engine_environment(),
                    process_group=0,
                )
        except BaseException:
            self._socket.close()
            raise
        self.pid = self._process.pid
        # A thread works on every system and event loop, and reaps the child whatever becomes of the loop.
        threading.Thread(target=self._reap, args=(loop,), name="headrace-engine-exit", daemon=True).start()
        self.send(hello)

    async def listen(self, take: Callable[[FromEngines], None]) -> None:
        """Hand what the child says to `take` as it comes, until it ends. Raises what `take` raises."""
        self._transport, connection = await asyncio.get_running_loop().create_connection(
            lambda: _Connection(take), sock=self._socket
        )
        closed = connection.closed
        await asyncio.wait((closed, self._ended), return_when=asyncio.FIRST_COMPLETED)
        if not closed.done():  # its last words may still be on their way
            await asyncio.wait((closed,), timeout=LAST_WORDS_SECONDS)
        if closed.done():
            closed.result()
        await asyncio.wait((self._ended,), timeout=END_SECONDS)
        await self.end(patience=0)

    def send(self, message: ToEngines) -> None:
        """Queue a message, without limit: this neither waits nor fails. One to a child that has died is lost."""
        if self._transport is not None:
            self._transport.write(frame(encode(message)))
            return
        with contextlib.suppress(ConnectionError):
            self._socket.sendall(frame(encode(message)))  # the few that there are before `listen` fit its buffer

    def exit_text(self) -> str:
        """How the child ended; it must have."""
        code = self._ended.result()
        if code == -signal.SIGKILL:
            return "signal 9: somebody killed it, or memory ran out"
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def end(self, patience: float) -> None:
        """Ask the child to end, kill it if it has not within `patience` seconds, and free what belonged to it."""
        try:
            if patience > 0:
                self.send(Stop())
                await asyncio.wait((self._ended,), timeout=patience)
            self._process.kill()  # does nothing to one that has ended
            await asyncio.wait((self._ended,))
        finally:
            self._process.kill()
            if self._process.stdin is not None:
                self._process.stdin.close()
            if self._transport is not None:
                self._transport.abort()
            else:
                self._socket.close()

    def _reap(self, loop: asyncio.AbstractEventLoop) -> None:
        code = self._process.wait()

        def tell() -> None:
            if not self._ended.done():
                self._ended.set_result(code)

        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody is left who wants to know
            loop.call_soon_threadsafe(tell)


class _Connection(asyncio.Protocol):
    """The parent's end of the socket. A plain stream: ZeroMQ's own thread and asyncio's futures cost three times as
    much CPU per message (`benchmarks/api_path.py`), and the kernels want those cores.

    `closed` is done once the child has closed its end, or failed with what `take` raised.
    """

    def __init__(self, take: Callable[[FromEngines], None]) -> None:
        self.closed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._take = take
        self._frames = Frames()

    def data_received(self, data: bytes) -> None:
        if self.closed.done():
            return
        try:
            for message in self._frames.feed(data):
                self._take(decode_from_engines(message))
        except Exception as error:
            self.closed.set_exception(error)

    def connection_lost(self, _: Exception | None) -> None:
        if not self.closed.done():
            self.closed.set_result(None)
