"""A command on a pseudo-terminal: what it draws is read, keys are typed."""

from __future__ import annotations

import contextlib
import os
import pty
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator

_SECONDS = 60.0


class Terminal:
    """`screen`: everything the command has written so far, escape sequences included."""

    def __init__(self, *arguments: str, columns: int, environment: dict[str, str]) -> None:
        self._master, slave = pty.openpty()
        termios.tcsetwinsize(slave, (40, columns))
        self.process = subprocess.Popen(
            [sys.executable, "-m", "headrace", *arguments],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**os.environ, "TERM": "xterm", "COLUMNS": str(columns), **environment},
            start_new_session=True,
            preexec_fn=_take_terminal,
        )
        os.close(slave)
        self.screen = ""
        self._expected = 0

    def expect(self, text: str) -> None:
        """Wait until `text` is written behind what was expected before."""
        deadline = time.monotonic() + _SECONDS
        while (place := self.screen.find(text, self._expected)) < 0:
            assert self._read(deadline - time.monotonic()), f"{text!r} did not come:\n{self.screen}"
        self._expected = place + len(text)

    def type(self, text: str) -> None:
        os.write(self._master, text.encode())

    def exit_code(self) -> int:
        deadline = time.monotonic() + _SECONDS
        while self._read(deadline - time.monotonic()):
            pass
        return self.process.wait(_SECONDS)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()
        os.close(self._master)

    def _read(self, seconds: float) -> bool:
        """Whether something was written in time."""
        ready, _, _ = select.select([self._master], [], [], max(0.0, seconds))
        if not ready:
            return False
        try:
            self.screen += os.read(self._master, 65536).decode(errors="replace")
        except OSError:  # the command has ended
            return False
        return True


def _take_terminal() -> None:
    """Ctrl-C reaches the command: the pseudo-terminal is its own."""
    import fcntl

    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


@contextlib.contextmanager
def on_terminal(*arguments: str, columns: int = 100, environment: dict[str, str] | None = None) -> Iterator[Terminal]:
    terminal = Terminal(*arguments, columns=columns, environment=environment or {})
    try:
        yield terminal
    finally:
        terminal.close()
