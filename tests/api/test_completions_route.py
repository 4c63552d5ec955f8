"""/v1/completions, whole and streamed."""

from __future__ import annotations

from typing import Any

import pytest

PATH = "/v1/completions"


def texts_by_index(events: list[dict[str, Any]]) -> dict[int, str]:
    texts: dict[int, str] = {}
    for event in events:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


def test_body_has_every_field(app):
    app.says(" Paris.")
    body = app.complete(prompt="The capital of France is")
    (choice,) = body["choices"]
    assert choice == {
        "index": 0,
        "text": " Paris.",
        "logprobs": None,
        "finish_reason": "stop",
        "stop_reason": None,
        "token_ids": None,
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "routed_experts": None,
    }
    assert body["id"].startswith("cmpl-")
    assert (body["object"], body["model"]) == ("text_completion", "smol")
    assert body["system_fingerprint"].startswith("headrace-")
    assert body["usage"] == {
        "prompt_tokens": 5,
        "total_tokens": 8,
        "completion_tokens": 3,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    unset = ("service_tier", "kv_transfer_params", "ec_transfer_params", "metrics")
    assert {name: body[name] for name in unset} == dict.fromkeys(unset)


def test_two_prompts_with_two_choices_are_numbered_by_prompt(app):
    france, spain = app.tokenizer.encode("France"), app.tokenizer.encode("Spain")
    eos = app.tokenizer.eos_token_id
    app.engine.script.by_prompt = {
        france[0]: [*app.tokenizer.encode(" Paris"), eos],
        spain[0]: [*app.tokenizer.encode(" Madrid"), eos],
    }
    request = {"prompt": ["France", "Spain"], "n": 2, "seed": 1}
    body = app.complete(**request)
    expected = {0: " Paris", 1: " Paris", 2: " Madrid", 3: " Madrid"}
    assert {choice["index"]: choice["text"] for choice in body["choices"]} == expected
    assert body["usage"]["prompt_tokens"] == len(france) + len(spain)
    assert texts_by_index(app.stream(PATH, **request)) == expected


@pytest.mark.parametrize(
    ("prompt", "prompts"),
    [("ab", [[369]]), ([1, 2, 3], [[1, 2, 3]]), ([[1], [2, 3]], [[1], [2, 3]]), (["ab", "ab"], [[369], [369]])],
)
def test_forms_of_prompts(app, prompt, prompts):
    app.complete(prompt=prompt)
    assert [request.prompt_ids for request in app.engine.requests] == prompts


def test_max_tokens_is_16_unless_given(app):
    app.says(" a", eos=False)
    for given in ({}, {"max_tokens": None}):
        assert app.complete(prompt="x", **given)["usage"]["completion_tokens"] == 16
    assert app.complete(prompt="x", max_tokens=5)["choices"][0]["finish_reason"] == "length"


def test_stream_chunks(app):
    app.says(" Paris.")
    events = app.stream(PATH, prompt="The capital of France is")
    assert len({(event["id"], event["created"], event["model"]) for event in events}) == 1
    assert all("usage" not in event and event["object"] == "text_completion" for event in events)
    first, last = events[0], events[-1]
    assert first["choices"] == [
        {
            "index": 0,
            "text": first["choices"][0]["text"],
            "logprobs": None,
            "finish_reason": None,
            "stop_reason": None,
            "prompt_token_ids": None,
            "token_ids": None,
        }
    ]
    assert "system_fingerprint" not in first
    assert last["choices"][0]["finish_reason"] == "stop"
    assert last["system_fingerprint"].startswith("headrace-")
    assert texts_by_index(events) == {0: " Paris."}


def test_usage_chunk(app):
    app.says(" Paris.")
    *events, usage = app.stream(PATH, prompt="The capital of France is", stream_options={"include_usage": True})
    assert all("usage" not in event and "system_fingerprint" not in event for event in events)
    assert usage.keys() == {"id", "object", "created", "model", "choices", "system_fingerprint", "usage"}
    assert usage["choices"] == []
    assert usage["usage"] == {"prompt_tokens": 5, "total_tokens": 8, "completion_tokens": 3}


def test_continuous_usage(app):
    app.says(" Paris.")
    options = {"include_usage": True, "continuous_usage_stats": True}
    events = app.stream(PATH, prompt="The capital of France is", stream_options=options)
    counts = [event["usage"]["completion_tokens"] for event in events]
    assert counts == sorted(counts)
    assert counts[-2:] == [3, 3]


def test_forced_usage_and_cached_tokens(make_app):
    app = make_app(api={"enable_force_include_usage": True, "enable_prompt_tokens_details": True})
    app.says(" Paris.")
    events = app.stream(PATH, prompt="The capital")
    assert all("usage" in event for event in events)
    assert events[-1]["usage"]["prompt_tokens_details"] == {"cached_tokens": 0}
    details = app.complete(prompt="The capital")["usage"]["prompt_tokens_details"]
    assert details == {"cached_tokens": 0, "created_cache_tokens": None, "multimodal_tokens": None}


def test_logprobs(app):
    paris, dot = app.says(" Paris.")
    body = app.complete(prompt="The capital of France is", logprobs=2)
    logprobs = body["choices"][0]["logprobs"]
    text = app.tokenizer.token_text
    assert logprobs["tokens"] == [" Paris", ".", "<|im_end|>"]
    assert logprobs["text_offset"] == [0, 6, 7]
    assert logprobs["token_logprobs"] == [-0.5] * 3
    assert logprobs["top_logprobs"][0] == {" Paris": -0.5, text(paris + 1, ()): -1.5}
    assert list(logprobs["top_logprobs"][1]) == [".", text(dot + 1, ())]


def test_logprobs_zero_shows_the_chosen_token_only(app):
    app.says(" Paris")
    assert app.complete(prompt="x", logprobs=0)["choices"][0]["logprobs"]["top_logprobs"][0] == {" Paris": -0.5}


def test_logprobs_of_an_unlikely_token(app):
    (paris,) = app.says(" Paris")
    app.engine.script.rank = 1000
    (top, _) = app.complete(prompt="x", logprobs=1)["choices"][0]["logprobs"]["top_logprobs"]
    assert top == {" Paris": -9999.0, app.tokenizer.token_text(paris + 1, ()): -0.5}


def test_streamed_logprobs_equal_the_whole(app):
    app.says(" Paris is the capital.")
    for extra in ({}, {"echo": True}, {"return_tokens_as_token_ids": True}):
        request = {"prompt": "It is:", "logprobs": 1, **extra}
        whole = app.complete(**request)["choices"][0]["logprobs"]
        pieces = [event["choices"][0]["logprobs"] for event in app.stream(PATH, **request)]
        assert {key: [item for piece in pieces for item in piece[key]] for key in whole} == whole


def test_tokens_as_ids(app):
    (paris,) = app.says(" Paris")
    logprobs = app.complete(prompt="x", logprobs=1, return_tokens_as_token_ids=True)["choices"][0]["logprobs"]
    assert logprobs["tokens"][0] == f"token_id:{paris}"
    assert logprobs["top_logprobs"][0] == {f"token_id:{paris}": -0.5}
    assert logprobs["text_offset"] == [0, len(f"token_id:{paris}")]


def test_echo_with_logprobs_covers_prompt_and_output(app):
    """As lm-eval's log-likelihood requests are."""
    ids = app.tokenizer.encode("The capital of France is")
    app.says(" Paris")
    body = app.complete(prompt=ids, echo=True, max_tokens=1, logprobs=1, temperature=0, seed=1)
    (choice,) = body["choices"]
    assert choice["text"] == "The capital of France is Paris"
    logprobs = choice["logprobs"]
    assert all(len(values) == len(ids) + 1 for values in logprobs.values())
    assert (logprobs["token_logprobs"][0], logprobs["top_logprobs"][0]) == (None, None)
    assert "".join(logprobs["tokens"]) == choice["text"]
    for value, token, top in list(zip(*map(logprobs.get, ("token_logprobs", "tokens", "top_logprobs")), strict=True))[
        1:
    ]:
        assert top[token] == value
    assert [entry if entry is None else list(entry) for entry in choice["prompt_logprobs"]] == [
        None,
        *([str(token)] for token in ids[1:]),
    ]


def test_echo_without_output(app):
    app.says(" Paris")
    body = app.complete(prompt="The capital", echo=True, max_tokens=0, logprobs=1)
    (choice,) = body["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == ("The capital", "length", None)
    assert choice["logprobs"]["tokens"] == ["The", " capital"]
    assert body["usage"]["completion_tokens"] == 0
    (event,) = app.stream(PATH, prompt="The capital", echo=True, max_tokens=0)
    assert event["choices"][0]["text"] == "The capital"
    assert event["choices"][0]["finish_reason"] == "length"


def test_echo_stream_joins_prompt_and_first_token(app):
    app.says(" Paris.")
    ids = app.tokenizer.encode("The capital")
    events = app.stream(PATH, prompt="The capital", echo=True, n=2)
    firsts = {event["choices"][0]["index"]: event["choices"][0] for event in reversed(events)}
    assert all(choice["text"].startswith("The capital Paris") for choice in firsts.values())
    assert all(choice["prompt_token_ids"] == ids for choice in firsts.values())
    assert texts_by_index(events) == {0: "The capital Paris.", 1: "The capital Paris."}


def test_token_ids(app):
    ids = app.says(" Paris.")
    prompt = app.tokenizer.encode("The capital")
    (choice,) = app.complete(prompt="The capital", return_token_ids=True, echo=True)["choices"]
    assert choice["token_ids"] == [*ids, app.tokenizer.eos_token_id]
    assert choice["prompt_token_ids"] == prompt
    assert choice["text"] == " Paris."  # beside ids the prompt is not repeated as text
    events = app.stream(PATH, prompt="The capital", return_token_ids=True)
    first, *rest = (event["choices"][0] for event in events)
    assert first["prompt_token_ids"] == prompt
    assert all(choice["prompt_token_ids"] is None for choice in rest)
    assert [token for choice in (first, *rest) for token in choice["token_ids"]] == [*ids, app.tokenizer.eos_token_id]


def test_prompt_logprobs(app):
    ids = app.tokenizer.encode("The capital of")
    app.says(" Paris")
    (choice,) = app.complete(prompt="The capital of", prompt_logprobs=2)["choices"]
    first, *rest = choice["prompt_logprobs"]
    assert first is None
    assert [list(entry) for entry in rest] == [[str(token), str(token + 1)] for token in ids[1:]]
    assert rest[0][str(ids[1])] == {"logprob": -0.5, "rank": 1, "decoded_token": " capital"}


def test_stop_string_across_tokens_does_not_leak(app):
    app.says(" The capital is Paris, of course.", eos=False)
    request = {"prompt": "x", "stop": ["is Par"], "max_tokens": 12}
    (choice,) = app.complete(**request)["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (" The capital ", "stop", "is Par")
    assert texts_by_index(app.stream(PATH, **request)) == {0: " The capital "}


def test_stop_token(app):
    ids = app.says(" Paris, France")
    (choice,) = app.complete(prompt="x", stop_token_ids=[ids[1]], return_token_ids=True)["choices"]
    assert (choice["text"], choice["finish_reason"], choice["stop_reason"]) == (" Paris", "stop", ids[1])
    assert choice["token_ids"] == ids[:2]


def test_prompt_that_leaves_one_token(app):
    body = app.complete(prompt=[5] * 511, max_tokens=5)
    assert body["choices"][0]["finish_reason"] == "length"
    assert body["usage"]["completion_tokens"] == 1


def test_truncation_keeps_the_end(app):
    for side, kept in ((None, [3, 4]), ("left", [3, 4]), ("right", [1, 2])):
        app.complete(prompt=[1, 2, 3, 4], truncate_prompt_tokens=2, truncation_side=side)
        assert app.engine.requests[-1].prompt_ids == kept


def test_a_failing_prompt_ends_the_stream_with_an_error(app):
    app.engine.script.broken = frozenset({7})
    *_, event = app.stream(PATH, prompt=[[5], [7], [6]], max_tokens=400)
    assert event["error"]["type"] == "InternalServerError"
    assert "broken on purpose" in event["error"]["message"]
    assert not app.engine.running


def test_engine_failure_without_stream(app):
    app.engine.script.broken = frozenset({7})
    response = app.post(PATH, {"prompt": [[5], [7]]})
    assert response.status_code == 500
    assert response.json()["error"]["code"] == 500
    app.engine.script.dies = True
    response = app.post(PATH, {"prompt": [5]})
    assert (response.status_code, response.json()["error"]["type"]) == (503, "ServiceUnavailableError")


def test_priority_header_wins(app):
    app.post(PATH, {"prompt": "x", "priority": 3}, headers={"X-Vllm-Priority": "-7"})
    app.complete(prompt="x", priority=3)
    assert [request.priority for request in app.engine.requests] == [-7, 3]


def test_cache_salt_reaches_the_engine(app):
    app.complete(prompt="x", cache_salt="mine")
    assert app.engine.requests[0].cache_salt == "mine"


def test_generation_config_fills_what_the_request_leaves_open(make_app):
    app = make_app(defaults={"temperature": 0.25, "top_k": 7, "max_new_tokens": 9})
    app.complete(prompt="x")
    app.complete(prompt="x", temperature=0.75, top_k=None)
    assert [(r.sampling.temperature, r.sampling.top_k) for r in app.engine.requests] == [(0.25, 7), (0.75, 7)]
    app.chat()
    assert app.engine.requests[-1].sampling.max_tokens == 9
