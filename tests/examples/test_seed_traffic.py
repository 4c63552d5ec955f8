"""What the clients of the user's own documents put on the wire, byte for byte, and what they read of the answers."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterator
from contextlib import closing

import openai
from running_server import Server


def exchange(server: Server, request_line: str, headers: list[str], body: bytes) -> http.client.HTTPResponse:
    """Send exactly this, and read the head of the answer."""
    lines = [request_line, *headers, f"Content-Length: {len(body)}", "Content-Type: application/json", "", ""]
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
    connection.sendall("\r\n".join(lines).encode() + body)
    response = http.client.HTTPResponse(connection)
    connection.close()  # the response keeps it open for as long as it is read
    response.begin()
    return response


def post_with_requests(server: Server, body: bytes) -> http.client.HTTPResponse:
    """As the legacy client does, by the `requests` library."""
    headers = [
        f"Host: localhost:{server.port}",
        "User-Agent: Test Client",
        "Accept-Encoding: gzip, deflate",
        "Accept: */*",
        "Connection: keep-alive",
    ]
    return exchange(server, "POST /generate HTTP/1.1", headers, body)


def lines_of(response: http.client.HTTPResponse) -> Iterator[bytes]:
    """What `iter_lines(delimiter=b"\\n")` makes of a stream: pieces between newlines, empty ones too."""
    yield from response.read().split(b"\n")


def test_legacy_request(example_server: Server) -> None:
    body = b'{"prompt": "Hello, world", "n": 1, "temperature": 0.0, "max_tokens": 16, "stream": false}'
    with closing(post_with_requests(example_server, body)) as response:
        assert response.status == 200
        output = json.loads(response.read())["text"]
    assert len(output) == 1
    assert output[0].startswith("Hello, world")
    assert len(output[0]) > len("Hello, world")


def test_legacy_stream(example_server: Server) -> None:
    body = b'{"prompt": "The capital of France is", "n": 1, "temperature": 0.0, "max_tokens": 16, "stream": true}'
    texts = []
    with closing(post_with_requests(example_server, body)) as response:
        assert response.status == 200
        for chunk in lines_of(response):
            if chunk:
                texts.append(json.loads(chunk.decode("utf-8"))["text"])
    assert all(len(candidates) == 1 for candidates in texts)
    assert texts[-1][0].startswith("The capital of France is Paris")
    assert [text for (text,) in texts] == sorted((text for (text,) in texts), key=len)


def test_legacy_candidates(example_server: Server) -> None:
    body = b'{"prompt": "Once upon a time", "n": 3, "temperature": 0.0, "max_tokens": 16, "stream": false}'
    with closing(post_with_requests(example_server, body)) as response:
        candidates = json.loads(response.read())["text"]
    assert len(candidates) == len(set(candidates)) == 3


def test_legacy_candidates_streamed(example_server: Server) -> None:
    body = b'{"prompt": "Once upon a time", "n": 3, "temperature": 0.0, "max_tokens": 16, "stream": true}'
    with closing(post_with_requests(example_server, body)) as response:
        shown = [json.loads(chunk)["text"] for chunk in lines_of(response) if chunk]
    with closing(post_with_requests(example_server, body.replace(b"true", b"false"))) as response:
        assert shown[-1] == json.loads(response.read())["text"]
    assert {len(candidates) for candidates in shown} == {3}
    assert all(len(text) > len("Once upon a time") for candidates in shown for text in candidates)
    assert len(shown) > 3


def test_legacy_curl(example_server: Server) -> None:
    headers = [f"Host: localhost:{example_server.port}", "User-Agent: curl/7.88.1", "Accept: */*"]
    body = b'{"prompt": "Hello", "max_tokens": 5}'
    with closing(exchange(example_server, "POST /generate HTTP/1.1", headers, body)) as response:
        assert response.status == 200
        (text,) = json.loads(response.read())["text"]
    assert text.startswith("Hello")


def test_token_generation_client(example_server: Server) -> None:
    headers = [
        f"Host: localhost:{example_server.port}",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "User-Agent: python-httpx/0.28.1",
    ]
    body = (
        b'{"model":"Qwen/Qwen3-0.6B","token_ids":[1,9690,198,2683,359,253,5356,5646,11173,30,2,198,1,4093,198,1780],'
        b'"sampling_params":{"max_tokens":24,"temperature":0.2,"detokenize":false},"stream":false}'
    )
    with closing(exchange(example_server, "POST /inference/v1/generate HTTP/1.1", headers, body)) as response:
        assert response.status == 200
        data = json.loads(response.read())
    generated = data["choices"][0]["token_ids"]
    assert 1 <= len(generated) <= 24
    assert all(type(token) is int for token in generated)


def test_the_migration_to_openai(example_server: Server) -> None:
    with openai.OpenAI(api_key="EMPTY", base_url=f"{example_server.url}/v1") as client:
        completion = client.completions.create(
            model="facebook/opt-125m", prompt="San Francisco is a", max_tokens=16, temperature=0.0, n=1
        )
        stream = client.completions.create(
            model="facebook/opt-125m", prompt="San Francisco is a", max_tokens=16, temperature=0.0, stream=True
        )
        assert "".join(chunk.choices[0].text for chunk in stream) == completion.choices[0].text
