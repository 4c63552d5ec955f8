"""A server on a real socket that does to each request, in turn, what a test tells it to."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

Answer = bytes
"""What is written to the connection, which is closed then. `b""` closes it without a word."""


@dataclass(frozen=True)
class Seen:
    """A request that arrived."""

    line: str
    headers: dict[str, str]
    body: bytes


class ScriptedServer:
    """Gives `answers` in order, then the last one again. `seen`: what came, in order."""

    def __init__(self, answers: Sequence[Answer]) -> None:
        self.seen: list[Seen] = []
        self.hung_up = threading.Event()
        self.url = ""
        self._answers = answers

    async def serve(self, started: threading.Event, stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._answer, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        started.set()
        await stop.wait()
        server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            line, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().strip().split("\r\n")
            headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
            body = await reader.readexactly(int(headers.get("content-length", 0)))
            answer = self._answers[min(len(self.seen), len(self._answers) - 1)]
            self.seen.append(Seen(line.removesuffix(" HTTP/1.1"), headers, body))
            writer.write(answer.removesuffix(SILENCE).removesuffix(RESET))
            await writer.drain()
            if answer.endswith(RESET):
                # Without waiting for anything to be read: the client is told that the connection is no more.
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                writer.transport.abort()
                return
            if answer.endswith(SILENCE):
                await reader.read()  # until the client hangs up
                self.hung_up.set()
        writer.close()


RESET = b"\0reset\0"
"""At the end of an answer: the connection is reset."""

SILENCE = b"\0silence\0"
"""At the end of an answer: the connection stays open, and nothing more comes."""


def reply(status: int, body: Any, **headers: str) -> Answer:
    """A whole response. `body`: bytes, or what becomes JSON. Header names are written with `_`."""
    text = body if isinstance(body, bytes) else json.dumps(body).encode()
    given = {"Content-Length": str(len(text)), "Content-Type": "application/json", "Connection": "close"}
    given |= {name.replace("_", "-"): value for name, value in headers.items()}
    head = "".join(f"{name}: {value}\r\n" for name, value in given.items())
    return f"HTTP/1.1 {status} X\r\n{head}\r\n".encode() + text


def chunked(*pieces: bytes, kind: str = "text/event-stream", complete: bool = True) -> Answer:
    """A response in pieces; without its end if it is not `complete`."""
    head = (
        f"HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nX-Request-Id: r-1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
    )
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head + body + (b"0\r\n\r\n" if complete else b"")


def event(body: Any) -> bytes:
    return b"data: " + json.dumps(body).encode() + b"\n\n"


def completion_event(text: str) -> bytes:
    return event({"id": "c", "choices": [{"index": 0, "text": text}]})


DONE = b"data: [DONE]\n\n"


@contextlib.contextmanager
def scripted(*answers: Answer) -> Iterator[ScriptedServer]:
    server = ScriptedServer(answers)
    started, stop = threading.Event(), asyncio.Event()
    loop = asyncio.new_event_loop()

    def run() -> None:
        loop.run_until_complete(server.serve(started, stop))
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    assert started.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
