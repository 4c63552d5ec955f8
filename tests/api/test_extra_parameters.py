"""What completions and chat take beyond OpenAI's fields: each changes the answer, the call, or is refused."""

from __future__ import annotations

import pytest
from envelopes import refused

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("server", "body", "shown"), [(False, None, False), (False, True, True), (True, None, True), (True, False, False)]
)
def test_tokens_as_ids_by_flag_or_request(make_app, server, body, shown):
    app = make_app(api={"return_tokens_as_token_ids": server})
    paris, *_ = app.says(" Paris", eos=False)
    name = f"token_id:{paris}" if shown else " Paris"
    asked = {} if body is None else {"return_tokens_as_token_ids": body}
    logprobs = app.complete(prompt="x", logprobs=1, max_tokens=1, **asked)["choices"][0]["logprobs"]
    assert logprobs["tokens"] == [name]
    assert list(logprobs["top_logprobs"][0]) == [name]
    (entry,) = app.chat(logprobs=True, top_logprobs=1, max_tokens=1, **asked)["choices"][0]["logprobs"]["content"]
    assert entry["token"] == entry["top_logprobs"][0]["token"] == name
    assert entry["bytes"] == list(b" Paris")


def test_tokens_as_ids_in_streams(make_app):
    app = make_app(api={"return_tokens_as_token_ids": True})
    paris, *_ = app.says(" Paris", eos=False)
    (event,) = app.stream(COMPLETIONS, prompt="x", logprobs=0, max_tokens=1)
    assert event["choices"][0]["logprobs"]["tokens"] == [f"token_id:{paris}"]
    _, event = app.stream_chat(logprobs=True, max_tokens=1)
    assert event["choices"][0]["logprobs"]["content"][0]["token"] == f"token_id:{paris}"


@pytest.mark.parametrize("count", [0, 1, 5])
def test_certain_tokens_are_reported_in_place_of_the_best(app, count):
    paris, *_ = app.says(" Paris", eos=False)
    text = app.tokenizer.token_text
    asked = {"logprob_token_ids": [400, 300], "max_tokens": 1}
    logprobs = app.complete(prompt="x", logprobs=count, **asked)["choices"][0]["logprobs"]
    assert logprobs["top_logprobs"] == [{" Paris": -0.5, text(400, ()): -101.0, text(300, ()): -102.0}]
    (entry,) = app.chat(logprobs=True, top_logprobs=count, **asked)["choices"][0]["logprobs"]["content"]
    assert [top["token"] for top in entry["top_logprobs"]] == [" Paris", text(400, ()), text(300, ())]
    assert app.engine.requests[-1].sampling.logprob_token_ids == (400, 300)
    assert paris not in (300, 400)


def test_an_echoed_prompt_still_shows_its_best(app):
    app.says(" Paris", eos=False)
    body = {"prompt": [400, 401], "echo": True, "logprobs": 1, "logprob_token_ids": [300, 301, 302], "max_tokens": 1}
    first, second, answer = app.complete(**body)["choices"][0]["logprobs"]["top_logprobs"]
    assert first is None
    assert len(second) == 1
    assert len(answer) == 4


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"logprobs": None}, "needs logprobs"),
        ({"logprob_token_ids": []}, "1 to 128 ids"),
        ({"logprob_token_ids": list(range(129))}, "1 to 128 ids"),
        ({"logprob_token_ids": [999999]}, "out of vocabulary"),
        ({"logprob_token_ids": [-1]}, "token ids"),
        ({"echo": True, "max_tokens": 0}, "max_tokens is 0"),
        ({"use_beam_search": True}, "use_beam_search"),
    ],
)
def test_certain_tokens_that_make_no_sense(app, change, words):
    error = refused(app.post(COMPLETIONS, {"prompt": "x", "logprobs": 1, "logprob_token_ids": [5], **change}))
    assert error["param"] == "logprob_token_ids"
    assert words in error["message"]


def test_chat_needs_its_switch_for_certain_tokens(app):
    error = refused(app.post(CHAT, {"messages": MESSAGES, "logprob_token_ids": [5]}))
    assert error["param"] == "logprob_token_ids"


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_salt_and_priority_reach_the_engine(app, path):
    body = {"prompt": "x"} if path == COMPLETIONS else {"messages": MESSAGES}
    app.ok(path, **body, cache_salt="grain", priority=7)
    assert app.post(path, {**body, "priority": 7}, headers={"X-Vllm-Priority": "-3"}).status_code == 200
    first, second = app.engine.requests
    assert (first.cache_salt, second.cache_salt) == ("grain", None)
    assert (first.priority, second.priority) == (7, -3)


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/inference/v1/generate"])
def test_a_priority_header_that_is_no_integer(app, path):
    body = {"prompt": "x", "messages": MESSAGES, "token_ids": [5], "sampling_params": {}}
    error = refused(app.post(path, body, headers={"X-Vllm-Priority": "soon"}))
    assert error["param"] == "priority"
    assert "X-Vllm-Priority" in error["message"]


def test_continuous_usage_stats_alone_show_nothing(app):
    app.says(" Paris. It is")
    for event in app.stream(COMPLETIONS, prompt="x", stream_options={"continuous_usage_stats": True}):
        assert "usage" not in event
