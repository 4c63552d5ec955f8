"""A caller that goes away leaves nothing running. Spoken in ASGI, to close the connection at a chosen moment."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

BODY = {"prompt": [[5], [6]], "n": 2, "max_tokens": 400, "ignore_eos": True}


class Connection:
    """One POST on one connection. It is closed when `closes` says so of a message that was sent."""

    def __init__(self, body: dict[str, Any]) -> None:
        self._body = json.dumps(body).encode()
        self._asked = False
        self.closed = asyncio.Event()
        self.sent: list[dict[str, Any]] = []

    def scope(self, path: str) -> dict[str, Any]:
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": "POST",
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "headers": [(b"content-type", b"application/json"), (b"host", b"headrace")],
            "client": ("127.0.0.1", 1),
            "server": ("headrace", 80),
            "state": {},
        }

    async def receive(self) -> dict[str, Any]:
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": self._body, "more_body": False}
        await self.closed.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


async def until(condition) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0)


@pytest.mark.parametrize("stream", [True, False])
def test_closing_aborts_every_sequence(make_app, stream):
    app = make_app(api={"enable_server_load_tracking": True})

    async def scenario() -> None:
        connection = Connection({**BODY, "stream": stream})
        scope = connection.scope("/v1/completions")
        serving = asyncio.create_task(app.app(scope, connection.receive, connection.send))
        await until(lambda: len(connection.sent) > 3 if stream else len(app.engine.running) == 2)
        assert len(app.engine.running) == 2
        connection.closed.set()
        await asyncio.wait_for(serving, 10)
        assert not app.engine.running
        assert len(app.engine.aborted) == 2
        if stream:
            assert b"[DONE]" not in connection.sent[-1]["body"]

    asyncio.run(scenario())
    assert app.get("/load").json() == {"server_load": 0}
    reported = 'vllm:request_success_total{engine="0",finished_reason="abort",model_name="smol"} 4.0'
    assert reported in app.get("/metrics").text


def test_load_counts_what_is_running(make_app):
    app = make_app(api={"enable_server_load_tracking": True})

    async def scenario() -> None:
        connection = Connection({**BODY, "stream": True})
        serving = asyncio.create_task(app.app(connection.scope("/v1/completions"), connection.receive, connection.send))
        await until(lambda: len(connection.sent) > 3)
        asked = Connection({})
        scope = asked.scope("/load") | {"method": "GET"}
        await app.app(scope, asked.receive, asked.send)
        assert json.loads(asked.sent[1]["body"]) == {"server_load": 1}
        connection.closed.set()
        await serving

    asyncio.run(scenario())


def test_closing_while_a_send_is_stuck(app):
    """A reader so slow that the server waits in `send` when the connection goes away."""

    async def scenario() -> None:
        connection = Connection({**BODY, "stream": True})
        stuck = asyncio.Event()

        async def send(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.body":
                stuck.set()
                await asyncio.Event().wait()

        serving = asyncio.create_task(app.app(connection.scope("/v1/completions"), connection.receive, send))
        await stuck.wait()
        connection.closed.set()
        await asyncio.wait_for(serving, 10)
        assert not app.engine.running

    asyncio.run(scenario())


def test_closing_before_the_first_byte(app):
    async def scenario() -> None:
        connection = Connection({**BODY, "stream": True})

        async def send(message: dict[str, Any]) -> None:
            connection.closed.set()
            await asyncio.Event().wait()

        await asyncio.wait_for(app.app(connection.scope("/v1/completions"), connection.receive, send), 10)
        assert not app.engine.running

    asyncio.run(scenario())


def test_two_live_requests_may_share_an_id(app):
    async def scenario() -> None:
        connections = [Connection({"prompt": "x", "request_id": "same", "max_tokens": 20}) for _ in range(2)]
        await asyncio.gather(*(app.app(one.scope("/v1/completions"), one.receive, one.send) for one in connections))
        for connection in connections:
            assert connection.sent[0]["status"] == 200
            assert json.loads(connection.sent[1]["body"])["id"] == "cmpl-same"

    asyncio.run(scenario())
    assert len({request.request_id for request in app.engine.requests}) == 2


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
def test_a_body_that_never_ends_is_no_error_of_the_server(app, caplog, path):
    messages = [{"type": "http.request", "body": b'{"prompt"', "more_body": True}, {"type": "http.disconnect"}]
    connection = Connection({})

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    asyncio.run(asyncio.wait_for(app.app(connection.scope(path), receive, connection.send), 10))
    assert connection.sent[0]["status"] == 499
    assert not caplog.records
