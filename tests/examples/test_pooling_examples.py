"""The examples and the user's own requests for embeddings, pooled outputs, scores and ranks."""

from __future__ import annotations

import re
import runpy
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_server import Server, serving

EXAMPLES = Path(__file__).parents[2] / "examples"
SEED_MODEL = "BAAI/bge-reranker-v2-m3"
Run = Callable[..., str]


@pytest.fixture(scope="module")
def embedding_server() -> Iterator[Server]:
    """MiniLM, under the name that the user's documents use too."""
    with serving("minilm", "--served-model-name", "minilm", SEED_MODEL) as running:
        yield running


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("name.py", "--flag", …)` runs an example and returns what it has printed."""

    def runner(name: str, *arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", [name, *arguments])
        runpy.run_path(str(EXAMPLES / name), run_name="__main__")
        return capsys.readouterr().out

    return runner


def test_openai_embeddings(run: Run, embedding_server: Server) -> None:
    out = run("openai_embeddings.py", "What brings water to a mill?", "--base-url", f"{embedding_server.url}/v1")
    lines = out.splitlines()
    assert len(lines) == 3
    assert "headrace" in lines[0]


def test_pooling(run: Run, embedding_server: Server) -> None:
    assert run("pooling_client.py", "A mill.", "--url", embedding_server.url).startswith("384 numbers: ")
    by_token = run("pooling_client.py", "A mill.", "--task", "token_embed", "--url", embedding_server.url)
    *rows, tokens = by_token.splitlines()
    assert len(rows) == 5
    assert tokens == "5 tokens"
    with pytest.raises(SystemExit, match="cannot do the task 'classify'"):
        run("pooling_client.py", "--task", "classify", "--url", embedding_server.url)


def test_scores(run: Run, embedding_server: Server) -> None:
    one, each, by_pair, *ranked = run("score_client.py", "--url", embedding_server.url).splitlines()
    assert re.fullmatch(r"One pair: \[0\.\d+\]", one)
    assert each.count(",") == by_pair.count(",") == 1
    assert ranked[0].endswith("  The capital of France is Paris.")


def test_cohere(run: Run, embedding_server: Server) -> None:
    lines = run("cohere_rerank.py", "--base-url", embedding_server.url).splitlines()
    assert len(lines) == 2
    assert "headrace" in lines[0]
    with pytest.raises(SystemExit, match="refused"):
        run("cohere_rerank.py", "--model", "nope", "--base-url", embedding_server.url)


@pytest.mark.parametrize(
    ("name", "flag", "path"),
    [
        ("openai_embeddings.py", "--base-url", "/v1"),
        ("pooling_client.py", "--url", ""),
        ("score_client.py", "--url", ""),
        ("cohere_rerank.py", "--base-url", ""),
    ],
)
def test_without_a_server(run: Run, name: str, flag: str, path: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(SystemExit, match="headrace serve minilm"):
        run(name, flag, f"http://127.0.0.1:{port}{path}")


def score(server: Server, **body: Any) -> list[float]:
    """As the user's documents send it, by curl."""
    headers = {"accept": "application/json", "Content-Type": "application/json"}
    response = httpx.post(f"{server.url}/score", headers=headers, json={"model": SEED_MODEL, **body}, timeout=60)
    assert response.status_code == 200, response.text
    answer = response.json()
    assert answer["object"] == "list"
    assert answer["usage"]["total_tokens"] > 0
    assert [(item["index"], item["object"]) for item in answer["data"]] == [
        (index, "score") for index in range(len(answer["data"]))
    ]
    return [item["score"] for item in answer["data"]]


def test_the_scores_of_the_seed(embedding_server: Server) -> None:
    france, brazil = "What is the capital of France?", "What is the capital of Brazil?"
    brasilia, paris = "The capital of Brazil is Brasilia.", "The capital of France is Paris."
    single = score(embedding_server, encoding_format="float", text_1=france, text_2=paris)
    batch = score(embedding_server, text_1=france, text_2=[brasilia, paris])
    pairs = score(embedding_server, encoding_format="float", text_1=[brazil, france], text_2=[brasilia, paris])
    assert (len(single), len(batch), len(pairs)) == (1, 2, 2)
    assert batch[1] > batch[0]
    assert batch[1] == pytest.approx(single[0], abs=1e-5)
    assert pairs[1] == pytest.approx(single[0], abs=1e-5)
    assert pairs[0] > batch[0]
