"""Embeddings, pooled outputs, classes, scores and ranks over HTTP, with MiniLM and tiny classifiers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pooling_app import Engines, PoolingApp
from pooling_models import save_bert_classifier

from headrace.hub import pull

TEMPLATE = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}{{ mood or '' }}"
)
LABELS = ("NEGATIVE", "NEUTRAL", "POSITIVE")
QUERY = "What is the capital of France?"
DOCUMENTS = ["The capital of Brazil is Brasilia.", "The capital of France is Paris.", "Horses run."]


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    minilm = pull("minilm", progress=False)
    folders: dict[str, Path] = {"minilm": minilm}
    for name, labels in (("cross", ("relevance",)), ("moods", LABELS)):
        folders[name] = tmp_path_factory.mktemp(name)
        save_bert_classifier(folders[name], minilm, labels=labels)
    with contextlib.closing(Engines(folders)) as engines:
        yield engines


@pytest.fixture(scope="module")
def app(engines: Engines) -> Iterator[PoolingApp]:
    with engines.app("minilm", template=TEMPLATE) as app:
        yield app


@pytest.fixture(scope="module")
def cross(engines: Engines) -> Iterator[PoolingApp]:
    with engines.app("cross") as app:
        yield app


def vectors_of(body: dict[str, Any]) -> np.ndarray:
    return np.array([item["embedding"] for item in body["data"]])


def test_an_embedding(app: PoolingApp) -> None:
    body = app.ok("/v1/embeddings", model="minilm-alias", input="A mill by the river.", user="somebody")
    assert re.fullmatch(r"embd-[0-9a-f]{16}", body.pop("id"))
    assert body.pop("created") > 1_700_000_000
    (item,) = body.pop("data")
    assert body == {
        "object": "list",
        "model": "minilm",
        "usage": {
            "prompt_tokens": 8,
            "total_tokens": 8,
            "completion_tokens": 0,
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
    }
    assert (item["index"], item["object"], len(item["embedding"])) == (0, "embedding", 384)
    assert np.linalg.norm(item["embedding"]) == pytest.approx(1, abs=1e-6)


def test_every_spelling_of_an_input_gives_the_same_vectors(app: PoolingApp, engines: Engines) -> None:
    texts = ["mill", "A mill by the river."]
    ids = [engines.tokenizers["minilm"].encode(text) for text in texts]
    listed = vectors_of(app.ok("/v1/embeddings", input=texts))
    assert np.allclose(listed, vectors_of(app.ok("/v1/embeddings", input=ids)), atol=1e-6)
    assert np.allclose(listed[:1], vectors_of(app.ok("/v1/embeddings", input=texts[0])), atol=1e-6)
    assert np.allclose(listed[1:], vectors_of(app.ok("/v1/embeddings", input=ids[1])), atol=1e-6)


def test_data_come_in_the_order_of_the_input(app: PoolingApp) -> None:
    texts = [f"{'river ' * (number % 7)}{number}" for number in range(40)]
    body = app.ok("/v1/embeddings", input=texts)
    assert [item["index"] for item in body["data"]] == list(range(40))
    alone = vectors_of(app.ok("/v1/embeddings", input=texts[33]))
    assert np.allclose(vectors_of(body)[33], alone[0], atol=1e-5)


def test_base64_is_the_same_vector(app: PoolingApp) -> None:
    numbers = vectors_of(app.ok("/v1/embeddings", input="mill", encoding_format="float"))[0]
    text = app.ok("/v1/embeddings", input="mill", encoding_format="base64")["data"][0]["embedding"]
    assert (np.frombuffer(base64.b64decode(text), "<f4") == numbers.astype("f4")).all()


def test_a_null_format_is_float(app: PoolingApp) -> None:
    assert isinstance(app.ok("/v1/embeddings", input="mill", encoding_format=None)["data"][0]["embedding"], list)


def test_big_endian_and_half_precision(app: PoolingApp) -> None:
    numbers = vectors_of(app.ok("/v1/embeddings", input="mill"))[0]
    wanted = {"encoding_format": "base64", "embed_dtype": "float16", "endianness": "big"}
    text = app.ok("/v1/embeddings", input="mill", **wanted)["data"][0]["embedding"]
    assert np.allclose(np.frombuffer(base64.b64decode(text), ">f2"), numbers, atol=1e-3)


@pytest.mark.parametrize("encoding_format", ["bytes", "bytes_only"])
def test_bytes(app: PoolingApp, encoding_format: str) -> None:
    texts = ["mill", "river"]
    expected = vectors_of(app.ok("/v1/embeddings", input=texts)).astype("<f4")
    response = app.post("/v1/embeddings", {"input": texts, "encoding_format": encoding_format})
    assert response.headers["content-type"] == "application/octet-stream"
    assert (np.frombuffer(response.content, "<f4").reshape(2, 384) == expected).all()
    if encoding_format == "bytes_only":
        assert "metadata" not in response.headers
        return
    metadata = json.loads(response.headers["metadata"])
    assert metadata["id"].startswith("embd-")
    assert (metadata["model"], metadata["usage"]["prompt_tokens"]) == ("minilm", 6)
    common = {"embed_dtype": "float32", "endianness": "native", "shape": [384]}
    assert metadata["data"] == [
        {"index": 0, **common, "start": 0, "end": 1536},
        {"index": 1, **common, "start": 1536, "end": 3072},
    ]


@pytest.mark.parametrize("name", ["use_activation", "normalize"])
def test_vectors_as_they_are(app: PoolingApp, name: str) -> None:
    raw = vectors_of(app.ok("/v1/embeddings", input="mill", **{name: False}))[0]
    assert np.linalg.norm(raw) > 2
    assert np.allclose(raw / np.linalg.norm(raw), vectors_of(app.ok("/v1/embeddings", input="mill"))[0], atol=1e-6)


def test_conversations_go_through_the_template(app: PoolingApp) -> None:
    first = [{"role": "user", "content": "mill"}]
    second = [{"role": "user", "content": [{"type": "text", "text": "river"}]}]
    expected = vectors_of(app.ok("/v1/embeddings", input=["user: mill\n", "user: river\n"], add_special_tokens=False))
    assert np.allclose(vectors_of(app.ok("/v1/embeddings", messages=first)), expected[:1], atol=1e-6)
    for field in ("messages", "input"):
        both = vectors_of(app.ok("/v1/embeddings", **{field: [first, second]}))
        assert np.allclose(both, expected, atol=1e-6)
    asked = {"add_generation_prompt": True, "add_special_tokens": True, "chat_template_kwargs": {"mood": "calm"}}
    prompted = app.ok("/v1/embeddings", messages=first, **asked)
    written = app.ok("/v1/embeddings", input="user: mill\nassistant: calm")
    assert np.allclose(vectors_of(prompted), vectors_of(written), atol=1e-6)


def test_a_template_of_the_request_needs_trust(engines: Engines) -> None:
    body = {"messages": [{"role": "user", "content": "mill"}], "chat_template": "{{ messages[0].content }}"}
    with engines.app("minilm", template=TEMPLATE, api={"trust_request_chat_template": True}) as app:
        trusted = vectors_of(app.ok("/v1/embeddings", **body, add_special_tokens=True))
        assert np.allclose(trusted, vectors_of(app.ok("/v1/embeddings", input="mill")), atol=1e-6)


def test_empty_and_very_long_texts(app: PoolingApp) -> None:
    body = app.ok("/v1/embeddings", input=["", "river " * 16_667, "x" * 100_000])
    assert body["usage"]["prompt_tokens"] == 2 + 256 + 3
    assert np.isfinite(vectors_of(body)).all()


def test_texts_are_cut_where_the_caller_says(app: PoolingApp) -> None:
    text = "mill river wheel"
    for side, kept in (("right", "mill"), ("left", "wheel")):
        body = app.ok("/v1/embeddings", input=text, truncate_prompt_tokens=3, truncation_side=side)
        assert np.allclose(vectors_of(body), vectors_of(app.ok("/v1/embeddings", input=kept)), atol=1e-6)
    assert app.ok("/v1/embeddings", input=text, truncate_prompt_tokens=-1)["usage"]["prompt_tokens"] == 5


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"input": []}, "must pass at least one prompt", "input"),
        ({}, "Exactly one of input and messages", "input"),
        ({"input": "a", "messages": [{"role": "user", "content": "b"}]}, "Exactly one of input and messages", "input"),
        ({"messages": []}, "messages must not be empty", "messages"),
        ({"input": [[101, 30522, 102]]}, "Token id 30522 is out of vocabulary", "input"),
        ({"input": [101, -5]}, "must be a string, a list of strings", "body.input"),
        ({"input": [[]]}, "must not be empty", "input"),
        ({"input": ["a", 5]}, "must be a string, a list of strings", "body.input"),
        ({"input": 5}, "must be a string, a list of strings", "body.input"),
        ({"input": "", "add_special_tokens": False}, "must not be empty", "input"),
        ({"input": "a", "dimensions": 64}, "dimensions must be unset", "dimensions"),
        ({"input": "a", "dimensions": 0}, "dimensions must be at least 1", "dimensions"),
        ({"input": "a", "encoding_format": "hex"}, "encoding_format", "body.encoding_format"),
        ({"input": "a", "embed_dtype": "int8"}, "embed_dtype", "body.embed_dtype"),
        ({"input": "a", "truncate_prompt_tokens": 257}, r"in \[1, 256\]", "truncate_prompt_tokens"),
        ({"input": "a", "padding": "max_length"}, "is not supported", "padding"),
        ({"input": "a", "normalize": True, "use_activation": False}, "contradict each other", "use_activation"),
        ({"input": "a", "mm_processor_kwargs": {"x": 1}}, "is not supported", "mm_processor_kwargs"),
        ({"input": "a", "cache_salt": "a/b"}, "cache_salt must have", "cache_salt"),
        ({"input": "a", "request_id": "\n"}, "printable", "request_id"),
        (
            {"messages": [{"role": "user", "content": "b"}], "chat_template": "x"},
            "no chat template from requests",
            "chat_template",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "minilm is not a multimodal model",
            "messages",
        ),
    ],
)
def test_bodies_that_make_no_sense(app: PoolingApp, body: dict[str, Any], message: str, param: str) -> None:
    error = app.refused("/v1/embeddings", **body)
    assert re.search(message, error["message"])
    assert (error["param"], error["code"]) == (param, 400)


def test_2048_inputs(app: PoolingApp, engines: Engines) -> None:
    """Others are answered meanwhile."""

    async def both() -> tuple[Any, Any, int]:
        big = asyncio.create_task(
            app.send("POST", "/v1/embeddings", json={"input": ["river"] * 2047 + ["mill"]}, timeout=60)
        )
        small = 0
        while not big.done():
            one = await app.send("POST", "/v1/embeddings", json={"input": "mill"})
            assert one.status_code == 200
            small += 1
        return (await big).json(), one.json(), small

    big, one, small = engines.loop.run(both())
    assert len(big["data"]) == 2048
    assert big["usage"]["prompt_tokens"] == 2048 * 3
    assert np.allclose(big["data"][2047]["embedding"], one["data"][0]["embedding"], atol=1e-5)
    assert small >= 2


def test_pooling(app: PoolingApp) -> None:
    body = app.ok("/pooling", input=["mill", "a mill"])
    assert body["id"].startswith("pooling-")
    assert [(item["index"], item["object"]) for item in body["data"]] == [(0, "pooling"), (1, "pooling")]
    expected = vectors_of(app.ok("/v1/embeddings", input=["mill", "a mill"]))
    assert np.allclose([item["data"] for item in body["data"]], expected, atol=1e-6)


def test_pooling_by_token(app: PoolingApp) -> None:
    body = app.ok("/pooling", input=["mill", "a mill"], task="token_embed")
    assert [np.array(item["data"]).shape for item in body["data"]] == [(3, 384), (4, 384)]
    text = app.ok("/pooling", input="mill", task="token_embed", encoding_format="base64")["data"][0]["data"]
    assert np.allclose(np.frombuffer(base64.b64decode(text), "<f4").reshape(3, 384), body["data"][0]["data"], atol=1e-6)


@pytest.mark.parametrize("task", ["classify", "encode", "score", "nonsense"])
def test_pooling_tasks_that_are_not_there(app: PoolingApp, task: str) -> None:
    error = app.refused("/pooling", input="mill", task=task)
    assert error["param"] == "task"
    assert "embed" in error["message"]


def test_pooling_never_shortens_vectors(app: PoolingApp) -> None:
    assert app.refused("/pooling", input="mill", dimensions=5)["param"] == "dimensions"


def test_classify(engines: Engines) -> None:
    with engines.app("moods") as app:
        body = app.ok("/classify", input=["a good day", "a bad day"])
        assert body["id"].startswith("classify-")
        for index, item in enumerate(body["data"]):
            assert (item["index"], item["num_classes"]) == (index, 3)
            assert sum(item["probs"]) == pytest.approx(1, abs=1e-6)
            assert item["label"] == LABELS[int(np.argmax(item["probs"]))]
        logits = app.ok("/classify", input="a good day", use_activation=False)["data"][0]["probs"]
        softmax = np.exp(logits) / np.exp(logits).sum()
        assert np.allclose(softmax, body["data"][0]["probs"], atol=1e-5)
        pooled = app.ok("/pooling", input="a good day")["data"][0]["data"]
        assert np.allclose(pooled, body["data"][0]["probs"], atol=1e-6)
        assert app.refused("/classify", input="a", encoding_format="base64")["param"] == "encoding_format"
        assert "3 classes" in app.refused("/score", model="moods", text_1="a", text_2="b")["message"]
        assert "No model of this server" in app.refused("/score", text_1="a", text_2="b")["message"]


SPELLINGS = [("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2")]


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("names", SPELLINGS)
def test_scores_in_every_spelling(cross: PoolingApp, path: str, names: tuple[str, str]) -> None:
    first, second = names
    body = cross.ok(path, **{first: QUERY, second: DOCUMENTS, "encoding_format": "float"})
    assert body["id"].startswith("score-")
    assert [(item["index"], item["object"]) for item in body["data"]] == [(index, "score") for index in range(3)]
    assert all(0 <= item["score"] <= 1 for item in body["data"])
    assert body["usage"]["prompt_tokens"] == body["usage"]["total_tokens"] > 3 * 9


def test_the_three_pairings(cross: PoolingApp) -> None:
    def scores(first: Any, second: Any) -> list[float]:
        return [item["score"] for item in cross.ok("/score", text_1=first, text_2=second)["data"]]

    one_to_many = scores(QUERY, DOCUMENTS)
    assert len(set(one_to_many)) == 3
    assert scores([QUERY] * 3, DOCUMENTS) == pytest.approx(one_to_many, abs=1e-6)
    assert scores([QUERY], DOCUMENTS[1]) == pytest.approx(one_to_many[1:2], abs=1e-6)
    objects = [{"text": DOCUMENTS[0]}, {"content": DOCUMENTS[1]}, {"content": [{"type": "text", "text": DOCUMENTS[2]}]}]
    assert scores({"content": QUERY}, objects) == pytest.approx(one_to_many, abs=1e-6)


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ({"text_1": ["a", "b", "c"], "text_2": ["d", "e"]}, "must be either 1:1, 1:N or N:N", "text_1"),
        ({"queries": ["a", "b"], "documents": "d"}, "must be either 1:1, 1:N or N:N", "queries"),
        ({"text_1": "a", "text_2": []}, "text_2 must hold at least one text", "text_2"),
        ({"text_1": "a"}, "Exactly one of these pairs", "text_1"),
        ({"text_1": "a", "documents": "b"}, "Exactly one of these pairs", "documents"),
        ({}, "Exactly one of these pairs", "text_1"),
        ({"text_1": "a", "text_2": [5]}, r"text_2\[0\] must be a text, or an object", "text_2"),
        ({"text_1": "a", "text_2": {"content": [{"type": "image_url"}]}}, "cross is not a multimodal model", "text_2"),
        ({"text_1": "a", "text_2": "b", "instruction": "x"}, "instruction is for decoders", "instruction"),
        ({"text_1": "a", "text_2": "b", "max_tokens_per_doc": -1}, "at least 0", "max_tokens_per_doc"),
        ({"text_1": "a", "text_2": "b", "dimensions": 5}, "not supported", "dimensions"),
    ],
)
def test_pairs_that_make_no_sense(cross: PoolingApp, body: dict[str, Any], message: str, param: str) -> None:
    error = cross.refused("/score", **body)
    assert re.search(message, error["message"])
    assert error["param"] == param


@pytest.mark.parametrize("path", ["/rerank", "/v1/rerank", "/v2/rerank"])
def test_rerank(app: PoolingApp, path: str) -> None:
    asked = {"query": QUERY, "documents": DOCUMENTS}
    body = app.ok(path, **asked, return_documents=False, rank_fields=["text"])
    assert body["id"].startswith("score-")
    assert set(body) == {"id", "model", "usage", "results"}
    assert body["usage"] == {
        "prompt_tokens": body["usage"]["total_tokens"],
        "total_tokens": body["usage"]["total_tokens"],
    }
    assert [item["index"] for item in body["results"]] == [1, 0, 2]
    relevances = [item["relevance_score"] for item in body["results"]]
    assert relevances == sorted(relevances, reverse=True)
    assert body["results"][0]["document"] == {"text": DOCUMENTS[1], "multi_modal": None}
    scores = [item["score"] for item in app.ok("/score", text_1=QUERY, text_2=DOCUMENTS)["data"]]
    assert [scores[item["index"]] for item in body["results"]] == pytest.approx(relevances, abs=1e-6)
    for top_n, count in ((2, 2), (0, 3), (10, 3)):
        best = app.ok(path, **asked, top_n=top_n)["results"]
        assert [item["index"] for item in best] == [1, 0, 2][:count]


def test_documents_as_objects(app: PoolingApp) -> None:
    plain = app.ok("/rerank", query=QUERY, documents=DOCUMENTS)["results"]
    objects = [{"text": DOCUMENTS[0]}, DOCUMENTS[1], {"content": [{"type": "text", "text": DOCUMENTS[2]}]}]
    as_objects = app.ok("/rerank", query={"content": QUERY}, documents=objects)["results"]
    assert [item["document"] for item in as_objects] == [item["document"] for item in plain]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"query": QUERY, "documents": []}, "documents"),
        ({"query": QUERY, "documents": DOCUMENTS, "top_n": -1}, "top_n"),
        ({"documents": DOCUMENTS}, "body.query"),
        ({"query": QUERY}, "body.documents"),
        ({"query": ["a", "b"], "documents": DOCUMENTS}, "query"),
        ({"query": QUERY, "documents": [{"title": "x"}]}, "documents"),
    ],
)
def test_reranks_that_make_no_sense(app: PoolingApp, body: dict[str, Any], param: str) -> None:
    assert app.refused("/v2/rerank", **body)["param"] == param


def test_each_route_takes_the_model_that_can(engines: Engines) -> None:
    with engines.app("moods", "minilm", "cross") as app:
        assert app.ok("/v1/embeddings", input="a")["model"] == "minilm"
        assert app.ok("/classify", input="a")["model"] == "moods"
        assert app.ok("/score", model="cross", text_1="a", text_2="b")["model"] == "cross"
        assert app.ok("/pooling", model="cross-alias", input="a")["model"] == "cross"
        assert app.ok("/rerank", query="a", documents=["b"])["model"] in ("cross", "minilm")
        error = app.refused("/v1/embeddings", model="cross", input="a")
        assert "`minilm` can" in error["message"]
        response = app.post("/v1/embeddings", {"model": "nope", "input": "a"})
        assert (response.status_code, response.json()["error"]["type"]) == (404, "NotFoundError")


def test_keys_guard_the_versioned_routes(engines: Engines) -> None:
    with engines.app("minilm", http={"api_key": ("secret",)}) as app:
        rank = {"query": "a", "documents": ["b"]}
        for path, body in (("/v1/embeddings", {"input": "a"}), ("/v1/rerank", rank), ("/v2/rerank", rank)):
            refused = app.post(path, body)
            assert (refused.status_code, refused.json()["error"]["type"]) == (401, "AuthenticationError")
            assert app.post(path, body, headers={"Authorization": "Bearer secret"}).status_code == 200
        assert app.post("/rerank", rank).status_code == 200


def test_request_ids(engines: Engines) -> None:
    with engines.app("minilm", http={"enable_request_id_headers": True}) as app:
        response = app.post("/v1/embeddings", {"input": "a"}, headers={"X-Request-Id": "abc"})
        assert (response.headers["x-request-id"], response.json()["id"]) == ("abc", "embd-abc")
        assert app.ok("/score", text_1="a", text_2="b", request_id="mine")["id"] == "score-mine"


def test_an_abort_ends_the_request(app: PoolingApp, engines: Engines) -> None:
    async def abort() -> tuple[int, str]:
        body = {"input": ["a mill by the river " * 20] * 2000, "request_id": "long"}
        running = asyncio.create_task(app.send("POST", "/v1/embeddings", json=body, timeout=60))
        while not running.done():
            await app.send("POST", "/inference/v1/abort_requests", json={"request_ids": ["embd-long"]})
            await asyncio.sleep(0)
        response = await running
        return response.status_code, response.json()["error"]["message"]

    assert engines.loop.run(abort()) == (499, "The request was aborted.")


def test_unknown_fields_are_refused_only_under_strict_rules(app: PoolingApp, engines: Engines) -> None:
    body = {"input": "a", "nobody_knows": 1}
    assert app.post("/v1/embeddings", body).status_code == 200
    with engines.app("minilm", api={"strict_requests": True}) as strict:
        assert strict.refused("/v1/embeddings", **body)["param"] == "nobody_knows"


def test_a_full_queue_is_a_503(engines: Engines) -> None:
    with engines.app("minilm", limits={"max_num_queued_reqs": 2}) as app:
        response = app.post("/v1/embeddings", {"input": ["a"] * 3})
        assert (response.status_code, response.json()["error"]["code"]) == (503, 503)
        assert (
            'vllm:admission_rejections_total{model_name="minilm",reason="max_num_queued_reqs"} 1.0'
            in app.get("/metrics").text
        )


def test_metrics_count_inputs(engines: Engines) -> None:
    with engines.app("minilm") as app:
        app.ok("/v1/embeddings", input=["a", "a mill"])
        text = app.get("/metrics").text
    labels = 'engine="0",model_name="minilm"'
    assert 'vllm:request_success_total{engine="0",finished_reason="stop",model_name="minilm"} 2.0' in text
    assert f"vllm:request_prompt_tokens_sum{{{labels}}} 7.0" in text
    assert f"vllm:e2e_request_latency_seconds_count{{{labels}}} 1.0" in text
    assert 'http_requests_total{handler="/v1/embeddings",method="POST",status="2xx"} 1.0' in text


def test_bodies_are_documented(app: PoolingApp) -> None:
    document = app.get("/openapi.json").json()
    for path, schema in (
        ("/v1/embeddings", "EmbeddingRequest"),
        ("/pooling", "PoolingRequest"),
        ("/classify", "ClassifyRequest"),
        ("/v1/score", "ScoreRequest"),
        ("/v2/rerank", "RerankRequest"),
    ):
        content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
        assert content["schema"]["$ref"] == f"#/components/schemas/{schema}"
        assert schema in document["components"]["schemas"]
