"""Vectors, classes and scores through both clients: what is sent, and how answers of any server are read."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from both_clients import Driver
from running_server import Server
from scripted_server import reply, scripted

from headrace.client import Answer, BadRequestError, ProtocolError

VECTOR = [1.0, -0.5, 0.25]
BASE64 = base64.b64encode(struct.pack("<3f", *VECTOR)).decode()


def embeddings(*vectors: Any) -> bytes:
    data = [{"index": index, "object": "embedding", "embedding": vector} for index, vector in enumerate(vectors)]
    return reply(200, {"object": "list", "model": "m", "data": data, "usage": {"prompt_tokens": 4, "total_tokens": 4}})


@pytest.mark.parametrize("sent", [VECTOR, BASE64], ids=["numbers", "base64"])
def test_embeddings_come_in_either_form(drive: Driver, sent: Any):
    with scripted(embeddings(sent, sent)) as server:
        answer = drive(server.url, "embed", ["a", "b"], dimensions=3, options={"model": "m"})
        body = json.loads(server.seen[0].body)
    assert answer.vectors == [VECTOR, VECTOR]
    assert answer.usage.prompt_tokens == 4
    assert server.seen[0].line == "POST /v1/embeddings"
    assert body == {"model": "m", "input": ["a", "b"], "encoding_format": "base64", "dimensions": 3}


def test_what_is_embedded_may_be_text_ids_or_a_conversation(drive: Driver):
    conversation = [{"role": "user", "content": "Hi"}]
    with scripted(embeddings(BASE64)) as server:
        for given in ("a", [1, 2], [[1], [2]], conversation):
            drive(server.url, "embed", given)
        bodies = [json.loads(request.body) for request in server.seen]
    assert [body.get("input") for body in bodies] == ["a", [1, 2], [[1], [2]], None]
    assert bodies[3]["messages"] == conversation


def test_another_encoding_can_be_asked_for(drive: Driver):
    with scripted(embeddings(VECTOR)) as server:
        drive(server.url, "embed", "a", extra_body={"encoding_format": "float"})
        assert json.loads(server.seen[0].body)["encoding_format"] == "float"


@pytest.mark.parametrize("vector", ["!!!", base64.b64encode(b"12345").decode(), {"a": 1}, "é"])
def test_garbage_is_no_vector(drive: Driver, vector: Any):
    with scripted(embeddings(vector)) as server, pytest.raises(ProtocolError):
        drive(server.url, "embed", "a")


def test_classes(drive: Driver):
    data = [{"index": 0, "label": "GOOD", "probs": [0.1, 0.9], "num_classes": 2}, {"index": 1, "probs": [0.7, 0.3]}]
    with scripted(reply(200, {"data": data})) as server:
        answer = drive(server.url, "classify", ["a", "b"], use_activation=True)
        assert server.seen[0].line == "POST /classify"
        assert json.loads(server.seen[0].body) == {"input": ["a", "b"], "use_activation": True}
    assert answer.labels == ["GOOD", None]
    assert answer.data[0].probs == [0.1, 0.9]


def test_scores(drive: Driver):
    data = [{"index": 0, "object": "score", "score": 0.5}, {"index": 1, "object": "score", "score": -1.0}]
    with scripted(reply(200, {"data": data})) as server:
        assert drive(server.url, "score", "q", ["a", "b"], truncate_prompt_tokens=-1).scores == [0.5, -1.0]
        assert server.seen[0].line == "POST /v1/score"
        assert json.loads(server.seen[0].body) == {"text_1": "q", "text_2": ["a", "b"], "truncate_prompt_tokens": -1}


def test_ranking(drive: Driver):
    results = [
        {"index": 1, "relevance_score": 0.9, "document": {"text": "b"}},
        {"index": 0, "relevance_score": 0.1, "document": {"text": "a"}},
    ]
    with scripted(reply(200, {"id": "r", "results": results})) as server:
        answer = drive(server.url, "rerank", "q", ["a", "b"], top_n=2)
        assert server.seen[0].line == "POST /v1/rerank"
        assert json.loads(server.seen[0].body) == {"query": "q", "documents": ["a", "b"], "top_n": 2}
    assert answer.order == [1, 0]
    assert answer.results[0].document == {"text": "b"}


def test_any_route_and_what_it_says(drive: Driver):
    with scripted(reply(200, {"data": [1]}, X_Request_Id="r-7")) as server:
        assert drive(server.url, "post", "/pooling", {"input": "a"}) == Answer(body={"data": [1]}, request_id="r-7")
        drive(server.url, "post", "/pooling", b'{"input":"b"}')
        assert [request.line for request in server.seen] == ["POST /pooling"] * 2
        assert [request.body for request in server.seen] == [b'{"input":"a"}', b'{"input":"b"}']


def test_a_refusal_has_the_whole_body(drive: Driver):
    body = {"error": {"message": "No.", "code": 400}, "more": 1}
    with scripted(reply(400, body)) as server, pytest.raises(BadRequestError) as caught:
        drive(server.url, "post", "/pooling", {})
    assert caught.value.body == body


CAT, KITTEN, RATES = "A cat sleeps.", "A kitten naps.", "Interest rates rise."


def test_a_real_server_embeds(drive: Driver, pooling_server: Server):
    answer = drive(pooling_server.url, "embed", [CAT, KITTEN])
    assert [len(vector) for vector in answer.vectors] == [384, 384]
    assert answer.model == "mini"
    assert answer.usage.prompt_tokens > 0
    as_numbers = drive(pooling_server.url, "embed", CAT, extra_body={"encoding_format": "float"})
    assert as_numbers.vectors[0] == pytest.approx(answer.vectors[0], abs=1e-6)
    ids = drive(pooling_server.url, "tokenize", CAT).tokens
    assert drive(pooling_server.url, "embed", ids).vectors[0] == pytest.approx(answer.vectors[0], abs=1e-5)


def test_a_real_server_scores_and_ranks(drive: Driver, pooling_server: Server):
    near, far = drive(pooling_server.url, "score", CAT, [KITTEN, RATES]).scores
    assert near > 0.5 > far
    ranking = drive(pooling_server.url, "rerank", CAT, [RATES, KITTEN])
    assert ranking.order == [1, 0]
    assert ranking.results[0].relevance_score == pytest.approx(near, abs=1e-4)
    assert drive(pooling_server.url, "rerank", CAT, [RATES, KITTEN], top_n=1).order == [1]


def test_what_a_model_cannot_do_is_refused(drive: Driver, pooling_server: Server):
    with pytest.raises(BadRequestError):
        drive(pooling_server.url, "classify", CAT)
    with pytest.raises(BadRequestError, match="dimensions"):
        drive(pooling_server.url, "embed", CAT, dimensions=7)
