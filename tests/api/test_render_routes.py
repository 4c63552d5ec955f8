"""POST …/render: what a text request becomes, in the language of /inference/v1/generate."""

from __future__ import annotations

import pytest
from envelopes import refused

COMPLETIONS = "/v1/completions/render"
CHAT = "/v1/chat/completions/render"
MESSAGES = [{"role": "user", "content": "Hi"}]


def test_a_completion_becomes_one_request_a_prompt(app):
    one, two = app.ok(COMPLETIONS, prompt=["The capital", "x"], temperature=0.5, stop="x", request_id="r")
    assert (one["request_id"], two["request_id"]) == ("cmpl-r-0", "cmpl-r-1")
    assert (one["token_ids"], two["token_ids"]) == (app.tokenizer.encode("The capital"), app.tokenizer.encode("x"))
    assert one["sampling_params"]["temperature"] == 0.5
    assert one["sampling_params"]["stop"] == "x"
    assert one["sampling_params"]["max_tokens"] == 16
    assert one["model"] == "smol"
    assert not app.engine.requests


def test_a_chat_becomes_one_request(app):
    body = app.ok(CHAT, messages=MESSAGES, cache_salt="grain", priority=3, stream=True)
    assert body["request_id"].startswith("chatcmpl-")
    tokenized = app.ok("/tokenize", messages=MESSAGES)
    assert body["token_ids"] == tokenized["tokens"]
    assert body["sampling_params"]["max_tokens"] == tokenized["max_model_len"] - tokenized["count"]
    assert (body["cache_salt"], body["priority"], body["stream"]) == ("grain", 3, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "/v1/completions",
            {
                "prompt": "The capital of France is",
                "seed": 4,
                "temperature": 0.7,
                "top_k": 9,
                "logit_bias": {"9": 2},
                "bad_words": ["x"],
                "stop_token_ids": [7],
                "logprobs": 2,
                "prompt_logprobs": 1,
            },
        ),
        ("/v1/completions", {"prompt": "x", "n": 2, "use_beam_search": True, "temperature": 0, "seed": 1}),
        ("/v1/chat/completions", {"messages": MESSAGES, "seed": 4, "min_tokens": 3, "max_completion_tokens": 5}),
    ],
)
def test_what_is_rendered_runs_as_the_original_does(make_app, path, body):
    app = make_app(defaults={"temperature": 0.25, "min_p": 0.1, "max_new_tokens": 9})
    rendered = app.ok(path + "/render", **body)
    app.ok(path, **body)
    app.ok("/inference/v1/generate", **(rendered[0] if isinstance(rendered, list) else rendered))
    direct, through = app.engine.requests
    assert direct.prompt_ids == through.prompt_ids
    assert direct.sampling == through.sampling
    assert (direct.n, direct.beam) == (through.n, through.beam)


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (COMPLETIONS, {"prompt": ""}, "prompt"),
        (COMPLETIONS, {"prompt": ["x"] * 1025}, "prompt"),
        (COMPLETIONS, {"prompt": [5] * 600}, "input_tokens"),
        (COMPLETIONS, {"prompt": "x", "temperature": 9}, "temperature"),
        (CHAT, {"messages": []}, "messages"),
        (CHAT, {"messages": MESSAGES, "max_tokens": 600}, "max_tokens"),
    ],
)
def test_what_makes_no_sense_is_refused_as_it_would_be(app, path, body, param):
    assert refused(app.post(path, body))["param"] == param
