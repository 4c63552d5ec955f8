"""Tokens in and out, and the demo API, on real servers: with a tokenizer, without one, and alone."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from openai import OpenAI
from running_server import Server

PROMPT = "The capital of France is"
GENERATE = "/inference/v1/generate"
GREEDY = {"temperature": 0, "max_tokens": 12}


@pytest.fixture(scope="module")
def tokens_only(smollm2_path: Path, start_server: Callable[..., object]) -> Iterator[Server]:
    with start_server(str(smollm2_path), "--tokens-only", "--max-model-len", "2048") as server:
        yield server


@pytest.fixture(scope="module")
def prompt_ids(server: Server) -> list[int]:
    return post(server, "/tokenize", prompt=PROMPT)["tokens"]


def post(server: Server, path: str, **body: object) -> dict:
    response = httpx.post(server.url + path, json=body, timeout=60)
    assert response.status_code == 200, response.text
    return response.json()


def events(server: Server, **body: object) -> list[dict]:
    response = httpx.post(server.url + GENERATE, json={**body, "stream": True}, timeout=60)
    *lines, done = [line for line in response.text.split("\n\n") if line]
    assert done == "data: [DONE]"
    return [json.loads(line.removeprefix("data: ")) for line in lines]


def wait_until_idle(server: Server) -> None:
    """The gauge of running requests is all that can be seen from outside."""
    deadline = time.monotonic() + 10
    while 'num_requests_running{engine="0",model_name="smol"} 0.0' not in httpx.get(f"{server.url}/metrics").text:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_ids_are_the_same_with_and_without_a_tokenizer(
    client: OpenAI, server: Server, tokens_only: Server, prompt_ids: list[int]
) -> None:
    completion = client.completions.create(
        model="smol", prompt=prompt_ids, extra_body={"return_token_ids": True}, **GREEDY
    )
    expected = completion.choices[0].token_ids
    assert len(expected) == 12
    for running in (server, tokens_only):
        body = {"token_ids": prompt_ids, "sampling_params": GREEDY}
        answer = post(running, GENERATE, **body)
        assert answer["choices"][0]["token_ids"] == expected
        streamed = events(running, **body)
        assert [token for event in streamed for token in event["choices"][0]["token_ids"]] == expected
        assert streamed[-1]["choices"][0]["finish_reason"] == "length"


def test_logprobs_are_those_of_the_completion(client: OpenAI, tokens_only: Server, prompt_ids: list[int]) -> None:
    completion = client.completions.create(model="smol", prompt=prompt_ids, logprobs=3, **GREEDY)
    params = {**GREEDY, "logprobs": 3}
    content = post(tokens_only, GENERATE, token_ids=prompt_ids, sampling_params=params)["choices"][0]["logprobs"][
        "content"
    ]
    assert [entry["logprob"] for entry in content] == completion.choices[0].logprobs.token_logprobs
    assert all(entry["rank"] == 1 and len(entry["top_logprobs"]) == 3 for entry in content)


def test_any_token_may_be_asked_for(server: Server, prompt_ids: list[int]) -> None:
    """The log-probabilities of two answers, neither of which the model gives, are those of the whole vocabulary."""
    yes, no = post(server, "/tokenize", prompt=" yes no")["tokens"]
    params = {**GREEDY, "max_tokens": 1, "logprobs": 0, "logprob_token_ids": [yes, no]}
    choice = post(server, GENERATE, token_ids=prompt_ids, sampling_params=params)["choices"][0]
    asked = {entry["token_id"]: entry for entry in choice["logprobs"]["content"][0]["top_logprobs"]}
    for token in (yes, no):
        scored = {**GREEDY, "max_tokens": 1, "prompt_logprobs": 0}
        scores = post(server, GENERATE, token_ids=[*prompt_ids, token], sampling_params=scored)["prompt_logprobs"]
        assert asked[token]["logprob"] == pytest.approx(scores[-1][str(token)]["logprob"], abs=1e-4)
        assert asked[token]["rank"] == scores[-1][str(token)]["rank"]


def test_a_stop_token_ends_the_answer(tokens_only: Server, prompt_ids: list[int]) -> None:
    whole = post(tokens_only, GENERATE, token_ids=prompt_ids, sampling_params=GREEDY)["choices"][0]["token_ids"]
    params = {**GREEDY, "stop_token_ids": [whole[3]]}
    choice = post(tokens_only, GENERATE, token_ids=prompt_ids, sampling_params=params)["choices"][0]
    assert choice["token_ids"] == whole[: whole.index(whole[3]) + 1]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", whole[3])


def test_the_models_own_end_is_known_without_a_tokenizer(server: Server, tokens_only: Server) -> None:
    messages = [{"role": "user", "content": "Say hi."}]
    ids = post(server, "/tokenize", messages=messages)["tokens"]
    ended = [
        post(running, GENERATE, token_ids=ids, sampling_params={"temperature": 0, "max_tokens": 200})["choices"][0]
        for running in (server, tokens_only)
    ]
    assert ended[0]["token_ids"] == ended[1]["token_ids"]
    assert ended[0]["finish_reason"] == ended[1]["finish_reason"] == "stop"


def test_seeds_repeat(tokens_only: Server, prompt_ids: list[int]) -> None:
    def draw(seed: int) -> list[list[int]]:
        params = {"seed": seed, "n": 2, "max_tokens": 8}
        choices = post(tokens_only, GENERATE, token_ids=prompt_ids, sampling_params=params)["choices"]
        return [choice["token_ids"] for choice in choices]

    first = draw(3)
    assert first == draw(3)
    assert first[0] != first[1]
    assert first != draw(4)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
        ("/generate", {"prompt": "x"}),
    ],
)
def test_a_server_without_a_tokenizer_refuses_text(tokens_only: Server, path: str, body: dict) -> None:
    response = httpx.post(tokens_only.url + path, json=body)
    assert response.status_code == 403
    assert "--tokens-only" in response.json()["error"]["message"]
    assert httpx.get(f"{tokens_only.url}/health").status_code == 200
    assert "/inference/v1/generate" in tokens_only.log


def test_what_is_rendered_runs_elsewhere(client: OpenAI, server: Server, tokens_only: Server) -> None:
    """The text half of a request on one server, the token half on another."""
    messages = [{"role": "user", "content": "Name a colour."}]
    spoken = client.chat.completions.create(
        model="smol", messages=messages, extra_body={"return_token_ids": True}, **GREEDY
    )
    rendered = post(server, "/v1/chat/completions/render", messages=messages, **GREEDY)
    ids = post(tokens_only, GENERATE, **{**rendered, "model": None})["choices"][0]["token_ids"]
    assert ids == spoken.choices[0].token_ids


def test_an_aborted_request_ends_and_frees_its_place(server: Server, prompt_ids: list[int]) -> None:
    params = {"max_tokens": 1900, "ignore_eos": True}
    body = {"token_ids": prompt_ids, "sampling_params": params, "stream": True, "request_id": "long"}
    with httpx.stream("POST", server.url + GENERATE, json=body, timeout=60) as response:
        lines = (line for line in response.iter_lines() if line)
        request_id = json.loads(next(lines).removeprefix("data: "))["request_id"]
        aborting = httpx.post(f"{server.url}/inference/v1/abort_requests", json={"request_ids": [request_id]})
        assert (aborting.status_code, aborting.content) == (200, b"")
        *_, last, done = lines
    assert json.loads(last.removeprefix("data: "))["choices"][0]["finish_reason"] == "abort"
    assert done == "data: [DONE]"
    wait_until_idle(server)


@pytest.mark.parametrize("n", [1, 3])
def test_a_legacy_caller_that_leaves_frees_its_place(server: Server, n: int) -> None:
    body = {"prompt": "Once", "n": n, "temperature": 0, "max_tokens": 1900, "ignore_eos": True, "stream": True}
    with httpx.stream("POST", f"{server.url}/generate", json=body, timeout=60) as response:
        assert next(response.iter_lines())
    wait_until_idle(server)


def test_the_demo_api_alone(smollm2_path: Path, start_server: Callable[..., object], server: Server) -> None:
    arguments = ("--model", str(smollm2_path), "--host", "127.0.0.1", "--log-level", "debug", "--max-model-len", "2048")
    with start_server(*arguments, command=("headrace.api.legacy",)) as demo:
        assert httpx.get(f"{demo.url}/health").content == b""
        assert post(demo, "/generate", prompt=PROMPT, **GREEDY) == post(server, "/generate", prompt=PROMPT, **GREEDY)
        for path in ("/v1/completions", GENERATE, "/v2/default/run"):
            assert httpx.post(demo.url + path, json={}).status_code == 404
        assert "/generate" in demo.log
        assert demo.stop() == 0
