"""POST /inference/v1/abort_requests: callers hear that their request was ended."""

from __future__ import annotations

import asyncio
import json

import pytest
from envelopes import refused
from test_disconnect import Connection, until

ABORT = "/inference/v1/abort_requests"
RUNNING = {"max_tokens": 400, "ignore_eos": True}
TOKENS = {"token_ids": [5], "sampling_params": RUNNING}
CHAT = {"messages": [{"role": "user", "content": "Hi"}], **RUNNING}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("name", ["prefixed", "bare"])
@pytest.mark.parametrize(
    ("path", "body", "prefix"),
    [
        ("/inference/v1/generate", TOKENS, "generate-tokens-"),
        ("/v1/completions", {"prompt": ["x", "y"], **RUNNING}, "cmpl-"),
        ("/v1/chat/completions", CHAT, "chatcmpl-"),
    ],
)
def test_running_requests_are_ended(app, path, body, prefix, name, stream):
    app.engine.script.holds = True
    asked = f"{prefix}mine" if name == "prefixed" else "mine"

    async def scenario() -> Connection:
        running = Connection({**body, "request_id": "mine", "stream": stream})
        other = Connection({**body, "request_id": "other"})
        serving = asyncio.create_task(app.app(running.scope(path), running.receive, running.send))
        neighbour = asyncio.create_task(app.app(other.scope(path), other.receive, other.send))
        prompts = 2 * len(body.get("prompt", "x"))
        await until(lambda: len(app.engine.running) == prompts and (len(running.sent) > 2 or not stream))
        aborting = Connection({"request_ids": ["unknown", asked]})
        await app.app(aborting.scope(ABORT), aborting.receive, aborting.send)
        assert (aborting.sent[0]["status"], aborting.sent[1]["body"]) == (200, b"")
        await asyncio.wait_for(serving, 10)
        assert not any("mine" in request_id for request_id in app.engine.running)
        assert len(app.engine.running) == prompts / 2
        app.engine.script.holds = False
        await asyncio.wait_for(neighbour, 10)
        assert b'"length"' in other.sent[-1]["body"]
        return running

    said = b"".join(message.get("body", b"") for message in asyncio.run(scenario()).sent)
    if stream:
        events = [event.removeprefix(b"data: ") for event in said.split(b"\n\n") if event]
        assert events.pop() == b"[DONE]"
        choices = [choice for event in events for choice in json.loads(event)["choices"]]
    else:
        choices = json.loads(said)["choices"]
    reasons = [choice["finish_reason"] for choice in choices if choice["finish_reason"]]
    assert reasons == ["abort"] * (2 if path == "/v1/completions" else 1)


def test_ids_that_nobody_has_are_none_of_the_running(app):
    assert app.post(ABORT, {"request_ids": []}).content == b""
    assert app.post(ABORT, {"request_ids": ["a", "b"]}).status_code == 200


@pytest.mark.parametrize("body", [{}, {"request_ids": None}, {"request_ids": "a"}, {"request_ids": [1]}, []])
def test_a_list_is_needed(app, body):
    assert refused(app.post(ABORT, body))["type"] == "Bad Request"


def test_it_needs_the_key(make_app):
    assert make_app(http={"api_key": ("k",)}).post(ABORT, {"request_ids": ["a"]}).status_code == 401


def test_nothing_is_left_of_requests_that_have_ended(app):
    app.complete(prompt="x", request_id="mine")
    app.stream("/v1/completions", prompt="x", request_id="mine")
    app.ok("/inference/v1/generate", token_ids=[5], sampling_params={"max_tokens": 1}, request_id="mine")
    app.post(ABORT, {"request_ids": ["mine", "cmpl-mine", "generate-tokens-mine"]})
    assert app.engine.aborted == []
