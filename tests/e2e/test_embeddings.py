"""Embeddings and ranks of a real server, by the clients that people use."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from pathlib import Path

import cohere
import httpx
import numpy as np
import openai
import pytest
from langchain_openai import OpenAIEmbeddings
from running_server import Server, serving

from headrace.hub import pull

WORDS = (
    *("river", "mill", "wheel", "water", "Channel", "bread", "flour", "unbelievable", "naïve", "é", "水"),
    *("3.14", "x-ray", ";", "don't", "(stone)", "[MASK]"),
)


@pytest.fixture(scope="module")
def minilm_path() -> Path:
    return pull("minilm", progress=False)


@pytest.fixture(scope="module")
def minilm(minilm_path: Path) -> Iterator[Server]:
    with serving(str(minilm_path), "--served-model-name", "minilm") as running:
        yield running


def random_texts(count: int) -> list[str]:
    """Of all lengths up to twice what the model reads, most of them short."""
    rng = random.Random(6)
    return ["", *(" ".join(rng.choices(WORDS, k=int(450 ** rng.random() ** 1.7))) for _ in range(count - 1))]


def test_vectors_are_those_of_sentence_transformers(minilm: Server, minilm_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    texts = random_texts(500)
    with minilm.client() as client:
        answer = client.embeddings.create(model="minilm", input=texts, timeout=120)
    ours = np.array([item.embedding for item in answer.data])
    theirs = SentenceTransformer(str(minilm_path), device="cpu").encode(texts, batch_size=16)
    assert (ours * theirs).sum(axis=1).min() > 0.9999
    assert np.abs(ours - theirs).max() < 2e-3
    assert answer.usage.prompt_tokens > 256 * 20, "some of the texts are cut"


def test_openai_as_numbers_and_as_base64(minilm: Server) -> None:
    with minilm.client() as client:
        by_default = client.embeddings.create(model="minilm", input="A mill by the river.")
        numbers = client.embeddings.create(model="minilm", input="A mill by the river.", encoding_format="float")
        ids = client.embeddings.create(model="minilm", input=[101, 1037, 4971, 2011, 1996, 2314, 1012, 102])
        raw = client.embeddings.with_raw_response.create(model="minilm", input="x", encoding_format="base64")
    vector = np.array(by_default.data[0].embedding)
    assert (vector == np.array(numbers.data[0].embedding)).all()
    assert np.allclose(vector, ids.data[0].embedding, atol=1e-6)
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)
    assert isinstance(raw.http_response.json()["data"][0]["embedding"], str)


def test_openai_errors(minilm: Server) -> None:
    with minilm.client() as client:
        with pytest.raises(openai.BadRequestError, match="Token id 99999 is out of vocabulary"):
            client.embeddings.create(model="minilm", input=[[99999]])
        with pytest.raises(openai.NotFoundError, match="`nope` does not exist"):
            client.embeddings.create(model="nope", input="x")
        with pytest.raises(openai.BadRequestError, match="generate text"):
            client.chat.completions.create(model="minilm", messages=[{"role": "user", "content": "Hi"}])


def test_many_clients_at_once(minilm: Server) -> None:
    texts = random_texts(64)

    async def ask() -> list[list[float]]:
        async with openai.AsyncOpenAI(base_url=f"{minilm.url}/v1", api_key="EMPTY") as client:
            answers = await asyncio.gather(*(client.embeddings.create(model="minilm", input=text) for text in texts))
        return [answer.data[0].embedding for answer in answers]

    with minilm.client() as client:
        together = client.embeddings.create(model="minilm", input=texts)
    assert np.allclose(asyncio.run(ask()), [item.embedding for item in together.data], atol=1e-5)


def test_cohere_reranks(minilm: Server) -> None:
    documents = ["Bread is made of flour.", "A headrace brings water to a mill.", "Paris is in France."]
    asked = {"model": "minilm", "query": "What brings water to a mill?", "documents": documents}
    second = cohere.ClientV2(api_key="EMPTY", base_url=minilm.url).rerank(**asked, top_n=2, max_tokens_per_doc=100)
    assert [result.index for result in second.results] == [1, 0]
    assert second.results[0].relevance_score > second.results[1].relevance_score
    first = cohere.Client(api_key="EMPTY", base_url=minilm.url).rerank(**asked, return_documents=True)
    assert [result.index for result in first.results] == [1, 0, 2]
    assert first.results[0].document.text == documents[1]


def test_langchain(minilm: Server) -> None:
    embeddings = OpenAIEmbeddings(
        model="minilm", base_url=f"{minilm.url}/v1", api_key="EMPTY", check_embedding_ctx_length=False
    )
    documents = embeddings.embed_documents(["A mill by the river.", "Paris is in France.", ""])
    query = np.array(embeddings.embed_query("water mill"))
    likeness = np.array(documents) @ query
    assert likeness[0] > likeness[1]
    assert np.linalg.norm(documents, axis=1) == pytest.approx(np.ones(3), abs=1e-6)


def test_a_client_that_goes_away_holds_nobody_up(minilm: Server) -> None:
    """Its 500 long texts would take ten seconds and more."""
    body = {"model": "minilm", "input": ["water to the mill wheel " * 60] * 500}
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(f"{minilm.url}/v1/embeddings", json=body, timeout=httpx.Timeout(30, read=2.0))
    with minilm.client(timeout=30) as client:
        assert len(client.embeddings.create(model="minilm", input="x").data) == 1
    assert 'finished_reason="abort",model_name="minilm"} 500.0' in httpx.get(f"{minilm.url}/metrics").text
