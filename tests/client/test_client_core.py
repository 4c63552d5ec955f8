"""The parts of the client that need no server: addresses, keys, readers of streams."""

from __future__ import annotations

import subprocess
import sys

import httpx
import pytest

import headrace
from headrace.client import AsyncClient, Client, ProtocolError, RetryPolicy
from headrace.client.call import reading
from headrace.client.results import ChatCompletion, ChatMessage, Completion
from headrace.client.streams import EventReader, LineReader

EVENTS = (
    b': a comment\r\nevent: x\r\ndata: {"choices": [{"index": 0, "text": "caf\xc3\xa9"}]}\r\n\r\n'
    b'data:{"choices": [{"index": 0,\ndata: "text": "b"}]}\n\n'
    b"data: [DONE]\n\n"
    b"data: ignored\n\n"
)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_events_come_whole_however_they_are_cut(size: int):
    reader = EventReader(reading(Completion))
    texts = []
    for start in range(0, len(EVENTS), size):
        reader.feed(EVENTS[start : start + size])
        while (item := reader.take()) is not None:
            texts.append(item.text)
    reader.feed(b"")
    assert reader.take() is None
    assert reader.at_end
    assert texts == ["café", "b"]


def test_a_last_line_needs_no_end():
    events = EventReader(reading(Completion))
    events.feed(b"data: [DONE]")
    events.feed(b"")
    assert events.take() is None
    lines = LineReader(reading(list[int]))
    lines.feed(b"[1]\n\n[2]")
    lines.feed(b"")
    assert [lines.take(), lines.take(), lines.take()] == [[1], [2], None]


def test_a_line_without_end_does_not_fill_memory(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("headrace.client.streams.LONGEST_LINE", 100)
    reader = LineReader(reading(list[int]))
    for _ in range(10):
        reader.feed(b"1234567890")
    with pytest.raises(ProtocolError, match="more than 100 bytes"):
        reader.feed(b"1")


def test_address_and_key_from_the_environment(monkeypatch: pytest.MonkeyPatch):
    def header(client: Client) -> str | None:
        sent: list[httpx.Request] = []

        def answer(request: httpx.Request) -> httpx.Response:
            sent.append(request)
            return httpx.Response(200, json={"data": []})

        with Client(client.base_url, transport=httpx.MockTransport(answer)) as probe:
            probe.models()
        return sent[0].headers.get("authorization")

    with Client() as client:
        assert client.base_url == "http://127.0.0.1:8000"
        assert header(client) is None
    monkeypatch.setenv("OPENAI_API_KEY", "second")
    monkeypatch.setenv("HEADRACE_BASE_URL", "https://example.test/some/where/v1/")
    with Client() as client:
        assert client.base_url == "https://example.test/some/where"
        assert header(client) == "Bearer second"
    monkeypatch.setenv("HEADRACE_API_KEY", " first\n")
    with Client() as client:
        assert header(client) == "Bearer first"


@pytest.mark.parametrize("url", ["localhost:8000", "ftp://example.test", "http://", "/v1", "http://[::1"])
def test_addresses_that_make_no_sense(url: str):
    with pytest.raises(ValueError, match="base URL"):
        Client(url)


def test_a_key_that_no_header_can_carry_is_not_shown():
    with pytest.raises(ValueError, match="API key") as caught:
        Client(api_key="sécret")
    assert "cret" not in str(caught.value)


def test_a_policy_is_not_negative():
    with pytest.raises(ValueError, match="negative"):
        RetryPolicy(max_retries=-1)


def test_a_message_can_be_sent_back():
    answer = reading(ChatCompletion)(
        b'{"choices": [{"message": {"role": "assistant", "content": "Hi", "refusal": null}}]}'
    )
    sent: list[bytes] = []

    def keep(request: httpx.Request) -> httpx.Response:
        sent.append(request.content)
        return httpx.Response(200, json={"choices": [{"message": {"content": "Ho"}}]})

    with Client(transport=httpx.MockTransport(keep)) as client:
        assert client.chat([{"role": "user", "content": "?"}, answer.choices[0].message]).text == "Ho"
    assert sent == [b'{"messages":[{"role":"user","content":"?"},{"role":"assistant","content":"Hi"}]}']
    assert ChatMessage().content is None


def test_the_package_offers_both():
    assert headrace.Client is Client
    assert headrace.AsyncClient is AsyncClient


def test_importing_it_loads_nothing_of_the_server():
    code = (
        "import sys, headrace.client;"
        "print([name for name in sys.modules if name.split('.')[0] in ('torch', 'fastapi', 'pydantic', 'numpy')"
        " or name.startswith('headrace.') and not name.startswith('headrace.client')])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"
