"""What a server does beside answering: keys, limits, YAML, and the loss of its engine."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import openai
import pytest

YAML = """\
host: "127.0.0.1"
port: 6379
uvicorn-log-level: "info"
api-key: [first, second]
served-model-name: guarded
max-num-queued-reqs: 4
max-model-len: 1k
allowed-origins: '["https://example.org"]'
"""


@pytest.fixture(scope="module")
def guarded(
    smollm2_path: Path, start_server: Callable[..., object], tmp_path_factory: pytest.TempPathFactory
) -> Iterator:
    """Configured by a file; the port of the command line wins over the file's."""
    config = tmp_path_factory.mktemp("config") / "config.yaml"
    config.write_text(YAML)
    with start_server(str(smollm2_path), "--config", str(config)) as server:
        yield server


def test_keys(guarded) -> None:
    for key in ("first", "second"):
        with guarded.client().with_options(api_key=key) as client:
            assert [model.id for model in client.models.list()] == ["guarded"]
    with guarded.client() as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    assert httpx.get(f"{guarded.url}/health").status_code == 200


def test_a_browser_may_read_the_refusal(guarded) -> None:
    response = httpx.get(f"{guarded.url}/v1/models", headers={"Origin": "https://example.org"})
    assert response.status_code == 401
    assert response.headers["access-control-allow-origin"] == "https://example.org"


def test_a_full_queue(guarded) -> None:
    with guarded.client().with_options(api_key="first") as client:
        with pytest.raises(openai.InternalServerError) as refused:
            client.completions.create(model="guarded", prompt="x", n=5)
        assert refused.value.status_code == 503
        assert client.completions.create(model="guarded", prompt="x", n=4, max_tokens=2).usage.completion_tokens <= 8


def engine_of(server) -> int:
    """Process id of the server's engine."""
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    (engine,) = [int(pid) for pid in children if "headrace.runtime.child" in Path(f"/proc/{pid}/cmdline").read_text()]
    return engine


def test_the_engine_dies_and_is_replaced(guarded) -> None:
    with guarded.client().with_options(api_key="first") as client:
        stream = client.completions.create(
            model="guarded", prompt="x", max_tokens=900, stream=True, extra_body={"ignore_eos": True}
        )
        next(iter(stream))
        os.kill(engine_of(guarded), signal.SIGKILL)
        with pytest.raises(openai.APIError, match="engine process died"):
            list(stream)
        assert httpx.get(f"{guarded.url}/health").status_code == 503
        deadline = time.monotonic() + 60
        while httpx.get(f"{guarded.url}/health").status_code != 200:  # a probe is all that a client has
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert client.completions.create(model="guarded", prompt="x", max_tokens=2).choices
