"""A server without a model that emits tokens on a fixed clock: what a load generator should measure is known.

    python tests/clock_server.py --port 8300 --first-ms 50 --gap-ms 10

Token k of an answer (from 0) is sent `first` + k * `gap` seconds after its request was here, never earlier.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

MODEL = "clock"


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """Seconds, and how to fail. `per_event`: tokens in one event. `cut_after`, `error_after`: tokens before it breaks.

    `status`: of every answer to a prompt. `framed` False ends an answer by closing the connection.
    """

    first: float = 0.02
    gap: float = 0.005
    per_event: int = 1
    usage: bool = True
    status: int = 200
    cut_after: int | None = None
    error_after: int | None = None
    silent: bool = False
    keep_alive: bool = True
    framed: bool = True
    tokenizes: bool = True


class ClockServer:
    """Serves on a free port in a thread of its own while the `with` block lasts. `bodies`: what it was asked."""

    def __init__(self, behaviour: Behaviour | None = None, port: int = 0) -> None:
        self.behaviour = behaviour or Behaviour()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.connections = 0
        self.running = 0
        self.most_running = 0
        self.port = port
        self._open: dict[asyncio.StreamWriter, asyncio.Task[None] | None] = {}
        self._listening = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._serve()), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._listening.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    async def serve(self) -> None:
        """Until it is cancelled."""
        await self._serve()

    async def _serve(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        server = await asyncio.start_server(self._connection, "127.0.0.1", self.port)
        self.port = server.sockets[0].getsockname()[1]
        self._listening.set()
        await self._stop.wait()
        server.close()
        handlers = [task for task in self._open.values() if task is not None]
        for writer in self._open:
            writer.transport.abort()
        await asyncio.gather(*handlers)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._open[writer] = asyncio.current_task()
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                method, path, _ = head[0].split()
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:])}
                body = await reader.readexactly(int(headers.get("content-length", 0)))
                if method == "POST" and path != "/tokenize":
                    self.bodies.append(json.loads(body))
                    self.headers.append(headers)
                self.running += 1
                self.most_running = max(self.most_running, self.running)
                try:
                    going_on = await self._answer(writer, path, json.loads(body) if body else {})
                finally:
                    self.running -= 1
                if not going_on or headers.get("connection") == "close":
                    break
        del self._open[writer]
        writer.close()

    async def _answer(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> bool:
        """Whether the connection is kept."""
        behaviour = self.behaviour
        if path == "/v1/models":
            return await self._json(writer, 200, {"object": "list", "data": [{"id": MODEL, "object": "model"}]})
        if path == "/tokenize" and behaviour.tokenizes:
            words = body["prompt"].split()
            special = [1] if body.get("add_special_tokens", True) else []
            ids = [*special, *(1000 + len(word) for word in words)]
            return await self._json(writer, 200, {"tokens": ids, "count": len(ids), "max_model_len": 1 << 20})
        if path not in ("/v1/completions", "/v1/chat/completions", "/v1/embeddings"):
            return await self._json(writer, 404, {"error": {"message": f"no route {path}", "code": 404}})
        if behaviour.silent:
            await self._stop.wait()
            return False
        if behaviour.status != 200:
            error = {"message": "out of order", "type": "Error", "code": behaviour.status}
            return await self._json(writer, behaviour.status, {"error": error})
        if path == "/v1/embeddings":
            await asyncio.sleep(behaviour.first)
            usage = {"prompt_tokens": _length(body["input"]), "total_tokens": _length(body["input"])}
            vector = {"object": "embedding", "index": 0, "embedding": [0.5, 0.5]}
            return await self._json(writer, 200, {"object": "list", "data": [vector], "usage": usage})
        return await self._stream(writer, path, body)

    async def _stream(self, writer: asyncio.StreamWriter, path: str, body: dict[str, Any]) -> bool:
        framed = self.behaviour.framed
        framing = "Transfer-Encoding: chunked" if framed else "Connection: close"
        writer.write(f"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{framing}\r\n\r\n".encode())
        async for event in self._events(path, body):
            data = b"data: " + event + b"\n\n"
            writer.write(b"%x\r\n%s\r\n" % (len(data), data) if framed else data)
            await writer.drain()
        if self.behaviour.cut_after is not None:
            return False
        if framed:
            writer.write(b"0\r\n\r\n")
        await writer.drain()
        return framed and self.behaviour.keep_alive

    async def _events(self, path: str, body: dict[str, Any]) -> AsyncIterator[bytes]:
        behaviour = self.behaviour
        began = self._loop.time()
        chat = path == "/v1/chat/completions"
        count = body.get("max_tokens") or body["max_completion_tokens"]
        prompt = body["messages"][-1]["content"] if chat else body["prompt"]
        for number in range(0, count, behaviour.per_event):
            if number == behaviour.cut_after:
                return
            if number == behaviour.error_after:
                yield json.dumps({"error": {"message": "the engine died", "code": 500}}).encode()
                break
            due = began + behaviour.first + number * behaviour.gap
            while (wait := due - self._loop.time()) > 0:
                await asyncio.sleep(wait)
            if chat and number == 0:
                yield _chunk({"delta": {"role": "assistant", "content": ""}, "index": 0, "finish_reason": None})
            text = " word" * min(behaviour.per_event, count - number)
            last = number + behaviour.per_event >= count
            said = {"delta": {"content": text}} if chat else {"text": text}
            yield _chunk({**said, "index": 0, "finish_reason": "length" if last else None})
        else:
            if behaviour.usage and (body.get("stream_options") or {}).get("include_usage"):
                length = _length(prompt)
                usage = {"prompt_tokens": length, "completion_tokens": count, "total_tokens": length + count}
                yield json.dumps({"id": "x", "model": MODEL, "choices": [], "usage": usage}).encode()
        yield b"[DONE]"

    async def _json(self, writer: asyncio.StreamWriter, status: int, body: dict[str, Any]) -> bool:
        data = json.dumps(body).encode()
        writer.write(f"HTTP/1.1 {status} X\r\nContent-Length: {len(data)}\r\n".encode())
        writer.write(b"Content-Type: application/json\r\n\r\n" + data)
        await writer.drain()
        return self.behaviour.keep_alive


def _chunk(choice: dict[str, Any]) -> bytes:
    return json.dumps({"id": "x", "object": "chunk", "created": 1, "model": MODEL, "choices": [choice]}).encode()


def _length(prompt: Any) -> int:
    """One token for a word, and one in front of a text, as `/tokenize` says."""
    if isinstance(prompt, list) and prompt and isinstance(prompt[0], dict):  # the parts of a message
        prompt = "".join(part["text"] for part in prompt)
    return len(prompt) if isinstance(prompt, list) else 1 + len(prompt.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--port", type=int, default=8300)
    parser.add_argument("--first-ms", type=float, default=50)
    parser.add_argument("--gap-ms", type=float, default=10)
    args = parser.parse_args()
    server = ClockServer(Behaviour(first=args.first_ms / 1e3, gap=args.gap_ms / 1e3), args.port)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(server.serve())


if __name__ == "__main__":
    main()
