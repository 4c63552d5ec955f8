"""The contract's traps (section 9) and its checklist (section 10), as far as they concern the text and token routes."""

from __future__ import annotations

import asyncio
import itertools
import json

import pytest
from envelopes import refused
from test_disconnect import Connection, until

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
GENERATE = "/inference/v1/generate"
LEGACY = "/generate"
MESSAGES = [{"role": "user", "content": "Hi"}]
BODIES = {
    COMPLETIONS: {"prompt": "x"},
    CHAT: {"messages": MESSAGES},
    GENERATE: {"token_ids": [5], "sampling_params": {}},
}
EVERY_STREAM = pytest.mark.parametrize("path", BODIES)


def test_trap_04_no_chunk_before_the_first_token(app):
    """The role is told with the first output: benchmarks take the first chunk for the first token."""
    app.engine.script.holds = True

    async def scenario() -> None:
        connection = Connection({**BODIES[CHAT], "stream": True, "max_tokens": 9, "ignore_eos": True})
        serving = asyncio.create_task(app.app(connection.scope(CHAT), connection.receive, connection.send))
        await until(lambda: app.engine.running)
        assert not any(message.get("body") for message in connection.sent)
        app.engine.script.holds = False
        await serving
        assert b'"role":"assistant"' in connection.sent[1]["body"]

    asyncio.run(scenario())


@EVERY_STREAM
def test_trap_05_the_usage_chunk_has_an_empty_list_of_choices(app, path):
    app.says(" Paris")
    *chunks, last = app.stream(path, **BODIES[path], stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 2
    assert not any(chunk.get("usage") for chunk in chunks)


@EVERY_STREAM
def test_trap_06_no_usage_unless_asked_for(app, path):
    for chunk in app.stream(path, **BODIES[path]):
        assert chunk.get("usage") is None
        assert chunk["choices"]


@EVERY_STREAM
def test_traps_07_and_08_an_error_in_a_stream_is_an_event_before_done(app, path):
    app.engine.script.dies = True
    (event,) = app.stream(path, **BODIES[path])  # which checks that [DONE] ends it
    assert event["error"]["message"]
    assert event["error"]["code"] == 503


@pytest.mark.parametrize("path", [*BODIES, LEGACY])
def test_trap_09_bad_bodies_are_400_with_a_message(app, path):
    assert refused(app.post(path, {"temperature": "hot"}), 400)["message"]


@EVERY_STREAM
def test_trap_10_chunks_share_their_identity(app, path):
    app.says(" Paris. It is")
    chunks = app.stream(path, **BODIES[path])
    assert len({(chunk.get("id"), chunk.get("request_id"), chunk.get("created")) for chunk in chunks}) == 1
    if path == CHAT:
        assert ["role" in chunk["choices"][0]["delta"] for chunk in chunks] == [True] + [False] * (len(chunks) - 1)


def test_traps_14_and_15_a_prompt_of_ids_is_scored(app):
    """As lm-eval asks; "greedy" is that the prompt token's own value is the best of its alternatives."""
    body = {"prompt": [[400, 401, 402]], "echo": True, "max_tokens": 1, "logprobs": 1, "temperature": 0, "seed": 1234}
    logprobs = app.complete(**body)["choices"][0]["logprobs"]
    assert [len(logprobs[name]) for name in ("tokens", "token_logprobs", "top_logprobs", "text_offset")] == [4] * 4
    assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
    for token, logprob, top in list(
        zip(logprobs["tokens"], logprobs["token_logprobs"], logprobs["top_logprobs"], strict=True)
    )[1:]:
        assert top[token] == logprob == max(top.values())


def test_trap_16_prompts_of_a_batch_keep_their_places(app):
    app.engine.script.by_prompt = {400 + place: [900 + place] for place in range(20)}
    prompts = [[400 + place] for place in range(20)]
    choices = app.complete(prompt=prompts, n=2, max_tokens=1, return_token_ids=True)["choices"]
    assert [choice["index"] for choice in choices] == list(range(40))
    assert [choice["token_ids"] for choice in choices] == [[900 + index // 2] for index in range(40)]


def test_trap_17_what_a_remote_tokenizer_asks(make_app):
    app = make_app(api={"enable_tokenizer_info_endpoint": True})
    info = app.get("/tokenizer_info").json()
    assert {"eos_token", "bos_token", "chat_template"} <= info.keys()
    tokens = app.ok("/tokenize", prompt="Hello world", add_special_tokens=False)["tokens"]
    assert app.ok("/detokenize", tokens=tokens) == {"prompt": "Hello world"}
    assert app.post(COMPLETIONS, {"prompt": "x", "stop": list("abcdefg")}).status_code == 200


def test_trap_18_a_benchmark_finds_model_and_tokenizer(app):
    model = app.get("/v1/models").json()["data"][0]
    assert (model["id"], model["root"]) == ("smol", "/models/smol.gguf")
    body = {"prompt": "x", "ignore_eos": True, "repetition_penalty": 1.0, "logprobs": None, "max_tokens": 2}
    assert app.stream(COMPLETIONS, **body, stream_options={"include_usage": True})


def test_trap_19_the_sdk_reads_the_id_of_the_header(make_app):
    app = make_app(http={"enable_request_id_headers": True})
    response = app.post(GENERATE, BODIES[GENERATE], headers={"X-Request-Id": "abc"})
    assert (response.headers["x-request-id"], response.json()["request_id"]) == ("abc", "generate-tokens-abc")


@pytest.mark.parametrize("path", [COMPLETIONS, LEGACY])
def test_trap_20_half_a_stop_string_does_not_leak(app, path):
    app.says(" one two three")
    body = {"prompt": "x", "stop": "wo th", "max_tokens": 9}
    if path == COMPLETIONS:
        pieces = [chunk["choices"][0]["text"] for chunk in app.stream(path, **body)]
    else:
        lines = app.post(path, {**body, "stream": True}).text.splitlines()
        texts = ["x", *(json.loads(line)["text"][0] for line in lines)]
        pieces = [longer[len(shorter) :] for shorter, longer in itertools.pairwise(texts)]
    assert "".join(pieces) == " one t"
    assert not any("w" in piece for piece in pieces)


@pytest.mark.parametrize("path", [COMPLETIONS, LEGACY])
def test_trap_21_whole_characters_and_the_leading_space(app, path):
    app.says(" Čeština 🙂")
    if path == COMPLETIONS:
        pieces = [chunk["choices"][0]["text"] for chunk in app.stream(path, prompt="x", max_tokens=40)]
        assert "".join(pieces) == " Čeština 🙂"
    else:
        pieces = app.post(path, {"prompt": "x", "stream": True, "max_tokens": 40}).text.splitlines()
        assert json.loads(pieces[-1])["text"] == ["x Čeština 🙂"]
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("path", [*BODIES, LEGACY])
def test_trap_23_a_users_mistake_is_never_ours(app, path):
    for mistake in ({"max_tokens": 10_000}, {"stop_token_ids": [10**6]}, {"logit_bias": {"x": 1}}, {"n": -1}):
        body = {"prompt": "x", **BODIES.get(path, {}), **mistake}
        if path == GENERATE:
            body = {"token_ids": [5], "sampling_params": mistake}
        assert app.post(path, body).status_code == 400, mistake


def test_trap_24_how_long_an_answer_may_be(app):
    app.complete(prompt=[400])
    app.chat()
    app.ok(GENERATE, token_ids=[400], sampling_params={})
    app.ok(LEGACY, prompt="x")
    app.complete(prompt=[400] * 511, max_tokens=5)
    completion, chat, tokens, legacy, clamped = app.engine.requests
    assert completion.sampling.max_tokens == 16
    assert chat.sampling.max_tokens == 512 - len(chat.prompt_ids)
    assert tokens.sampling.max_tokens == 511
    assert legacy.sampling.max_tokens == 16
    assert clamped.sampling.max_tokens == 1


@EVERY_STREAM
def test_trap_25_unknown_fields_pass_and_unknown_models_do_not(app, path):
    extra = {"user": "u", "store": True, "metadata": {"a": "b"}, "service_tier": "auto", "parallel_tool_calls": True}
    assert app.post(path, {**BODIES[path], **extra}).status_code == 200
    assert app.post(path, {**BODIES[path], "model": None}).status_code == 200
    refused(app.post(path, {**BODIES[path], "model": "nope"}), 404)


def test_check_several_answers_at_temperature_0(app):
    refused(app.post(COMPLETIONS, {"prompt": "x", "temperature": 0, "n": 2}))
    assert len(app.ok(LEGACY, prompt="x", temperature=0, n=2)["text"]) == 2


def test_check_ids_without_detokenizing(app):
    ids = app.says(" Paris", eos=False)
    params = {"detokenize": False, "max_tokens": len(ids)}
    assert app.ok(GENERATE, token_ids=[5], sampling_params=params)["choices"][0]["token_ids"] == ids


def test_check_the_legacy_stream_is_cumulative_with_the_prompt(app):
    app.says(" city on a hill")
    lines = app.post(LEGACY, {"prompt": "A", "stream": True}).text.splitlines()
    texts = [json.loads(line)["text"][0] for line in lines]
    assert all(longer.startswith(shorter) for shorter, longer in zip(["A", *texts], texts, strict=False))
    assert texts[-1] == "A city on a hill"


@EVERY_STREAM
def test_check_stop_tokens_and_ignored_ends(app, path):
    ids = app.says(" one two three")
    eos = app.tokenizer.eos_token_id
    field = {"stop_token_ids": [ids[1]]}
    body = {"token_ids": [5], "sampling_params": field} if path == GENERATE else {**BODIES[path], **field}
    (choice,) = app.ok(path, **body, return_token_ids=True)["choices"]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", ids[1])
    assert choice["token_ids"] == ids[:2]
    field = {"ignore_eos": True, "max_tokens": 8}
    body = {"token_ids": [5], "sampling_params": field} if path == GENERATE else {**BODIES[path], **field}
    (choice,) = app.ok(path, **body, return_token_ids=True)["choices"]
    assert choice["finish_reason"] == "length"
    assert len(choice["token_ids"]) == 8
    assert eos in choice["token_ids"]


@pytest.mark.parametrize("path", [*BODIES, LEGACY])
def test_check_a_wrong_key(make_app, path):
    app = make_app(http={"api_key": ("k",)})
    assert (
        app.post(path, {"prompt": "x", **BODIES.get(path, {})}, headers={"Authorization": "Bearer no"}).status_code
        == 401
    )
    assert app.get("/health").status_code == 200
