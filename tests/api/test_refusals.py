"""Bodies that are refused: status, envelope, and the words clients look for."""

from __future__ import annotations

import json
import logging

import pytest
from envelopes import refused

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"temperature": 2.5}, "temperature", "in [0, 2]"),
        ({"top_p": 0}, "top_p", "in (0, 1]"),
        ({"top_k": -2}, "top_k", "at least -1"),
        ({"n": 0}, "n", "at least 1"),
        ({"n": 2, "temperature": 0}, "n", "n must be 1 when using greedy sampling, got 2."),
        ({"seed": 2**63}, "seed", "seed"),
        ({"stop": [""]}, "stop", "empty"),
        ({"stop": [str(i) for i in range(17)]}, "stop", "16"),
        ({"max_tokens": 0}, "max_tokens", "echo"),
        ({"max_tokens": 600}, "max_tokens", "max_tokens=600 cannot be greater than max_model_len=512."),
        ({"max_tokens": 600}, "max_tokens", "(parameter=max_tokens, value=600)"),
        ({"prompt": []}, "prompt", "empty"),
        ({"prompt": ""}, "prompt", "empty"),
        ({"prompt": ["a", ""]}, "prompt", "empty"),
        ({"prompt": [999999]}, "prompt", "Token id 999999 is out of vocabulary"),
        ({"prompt": [5] * 513}, "input_tokens", "maximum context length is 512 tokens"),
        ({"prompt": [5] * 512}, "input_tokens", "at least 1 requested output token"),
        ({"prompt": ["x"] * 1025}, "prompt", "1024"),
        ({"logprobs": 21}, "logprobs", "Requested sample logprobs of 21, which is greater than max allowed: 20"),
        ({"logprobs": -2}, "logprobs", "logprobs"),
        ({"prompt_logprobs": 1, "stream": True}, "prompt_logprobs", "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only be defined when `stream=True`."),
        ({"truncate_prompt_tokens": 0}, "truncate_prompt_tokens", "truncate_prompt_tokens"),
        ({"allowed_token_ids": []}, "allowed_token_ids", "empty"),
        ({"logit_bias": {"999999": 1}}, "logit_bias", "out of vocabulary"),
        ({"cache_salt": "a@b"}, "cache_salt", "cache_salt"),
        ({"cache_salt": ""}, "cache_salt", "cache_salt"),
        ({"priority": 2**63}, "priority", "64-bit"),
        ({"request_id": "a\nb"}, "request_id", "printable"),
    ],
)
def test_values_that_make_no_sense(app, change, param, words):
    error = refused(app.post(COMPLETIONS, {"prompt": "x", **change}))
    assert error["type"] == "BadRequestError"
    assert error["param"] == param
    assert words in error["message"]
    assert not app.engine.requests


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"messages": []}, "messages", "empty"),
        ({"max_tokens": 0}, "max_tokens", "at least 1"),
        ({"top_logprobs": 2}, "top_logprobs", "logprobs is true"),
        ({"continue_final_message": True}, "continue_final_message", "add_generation_prompt"),
        ({"chat_template": "{{ messages }}"}, "chat_template", "template"),
        ({"chat_template_kwargs": {"chat_template": "x"}}, "chat_template_kwargs", "template"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}]},
            "messages",
            "smol is not a multimodal model",
        ),
        ({"messages": [{"role": "user", "content": [{"type": "smell"}]}]}, "messages", "smell"),
    ],
)
def test_chats_that_make_no_sense(app, change, param, words):
    error = refused(app.post(CHAT, {"messages": MESSAGES, **change}))
    assert (error["type"], error["param"]) == ("BadRequestError", param)
    assert words in error["message"]


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"temperature": "hot"}, "body.temperature"),
        ({"n": None}, "body.n"),
        ({"logprobs": "2"}, "body.logprobs"),
        ({"prompt_logprobs": "2"}, "body.prompt_logprobs"),
        ({"prompt": None}, "body.prompt"),
        ({"prompt": {"text": "x"}}, "body.prompt"),
        ({"prompt": [-1]}, "body.prompt"),
        ({"prompt": ["a", 1]}, "body.prompt"),
        ({"prompt": [True]}, "body.prompt"),
        ({"truncation_side": "middle"}, "body.truncation_side"),
        ({"stream_options": {"include_usage": "often"}, "stream": True}, "body.stream_options.include_usage"),
    ],
)
def test_schema_failures(app, change, param):
    error = refused(app.post(COMPLETIONS, {"prompt": "x", **change}))
    assert (error["type"], error["param"]) == ("Bad Request", param)
    first, second = error["message"].split("\n")
    assert first == "1 validation error:"
    assert second.startswith(f"  {param}: ")


def test_many_schema_failures_show_ten_lines(app):
    body = {"prompt": "x", "stop_token_ids": ["x"] * 12}
    lines = refused(app.post(COMPLETIONS, body))["message"].split("\n")
    assert lines[0] == "12 validation errors:"
    assert len(lines) == 11


def test_chat_schema_failures(app):
    assert refused(app.post(CHAT, {}))["param"] == "body.messages"
    assert refused(app.post(CHAT, {"messages": [{"content": "x"}]}))["param"] == "body.messages.0.role"
    error = refused(app.post(CHAT, {"messages": MESSAGES, "logprobs": True, "top_logprobs": "1"}))
    assert error["param"] == "body.top_logprobs"


def test_numbers_may_come_as_strings(app):
    app.complete(prompt="x", temperature="0.5", max_tokens="3", top_k="4", seed="7")
    sampling = app.engine.requests[0].sampling
    assert (sampling.temperature, sampling.max_tokens, sampling.top_k, sampling.seed) == (0.5, 3, 4, 7)


@pytest.mark.parametrize(
    ("raw", "param"),
    [(b'{"prompt": }', "body.11"), (b"", "body.0"), (b"\xff", "body.0"), (b'{"prompt": "x"', "body.14")],
)
def test_body_that_is_not_json(app, raw, param):
    response = app.request("POST", COMPLETIONS, content=raw, headers={"content-type": "application/json"})
    error = refused(response)
    assert (error["type"], error["param"]) == ("Bad Request", param)
    assert "json_invalid" in error["message"]


def test_body_that_is_not_an_object(app):
    for body in ([1], "x", 3):
        assert refused(app.post(COMPLETIONS, body))["param"] == "body"


def test_not_a_number_is_refused(app):
    headers = {"content-type": "application/json"}
    raw = b'{"prompt": "x", "logit_bias": {"5": NaN}}'
    assert "json_invalid" in refused(app.request("POST", COMPLETIONS, content=raw, headers=headers))["message"]
    error = refused(app.post(COMPLETIONS, {"prompt": "x", "logit_bias": {"5": "NaN"}}))
    assert error["param"] == "body.logit_bias.5"


@pytest.mark.parametrize("media_type", ["text/plain", "", "application/x-www-form-urlencoded"])
def test_wrong_content_type(app, media_type):
    response = app.request("POST", COMPLETIONS, content=b'{"prompt": "x"}', headers={"content-type": media_type})
    error = refused(response)
    assert error["type"] == "Bad Request"
    assert "Unsupported Media Type: Only 'application/json' is allowed" in error["message"]


def test_content_type_may_have_parameters(app):
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert app.request("POST", COMPLETIONS, content=b'{"prompt": "x"}', headers=headers).status_code == 200


def test_body_too_large(app, monkeypatch):
    monkeypatch.setattr("headrace.api.body.LARGEST", 1000)
    large = {"prompt": "x" * 1000}
    assert "1000 bytes" in refused(app.post(COMPLETIONS, large), 413)["message"]

    async def pieces():
        for _ in range(3):
            yield b'{"prompt": "' + b"x" * 400

    response = app.request("POST", COMPLETIONS, content=pieces(), headers={"content-type": "application/json"})
    assert refused(response, 413)["type"] == "BadRequestError"


def test_large_body_is_answered(app):
    body = app.complete(prompt=[[5] * 400] * 1024, max_tokens=1)
    assert len(body["choices"]) == 1024


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT, "/tokenize", "/detokenize"])
def test_unknown_model(app, path):
    body = {"model": "nope", "prompt": "x", "tokens": []} | ({"messages": MESSAGES} if path == CHAT else {})
    error = refused(app.post(path, body), 404)
    assert error["message"] == "The model `nope` does not exist. Valid aliases: smol, smol-alias."
    assert (error["type"], error["param"]) == ("NotFoundError", "model")


def test_model_may_be_absent_empty_or_an_alias(app):
    for model in (None, "", "smol", "smol-alias"):
        assert app.complete(prompt="x", model=model)["model"] == "smol"
    assert app.complete(prompt="x")["model"] == "smol"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("suffix", ""),
        ("stream_interval", 2),
        ("thinking_token_budget", 10),
        ("kv_transfer_params", {"a": 1}),
        ("mm_processor_kwargs", {"a": 1}),
    ],
)
def test_what_is_not_implemented_is_refused_by_name(app, name, value):
    error = refused(app.post(CHAT, {"messages": MESSAGES, name: value}))
    assert error["param"] == name
    assert error["message"].startswith(f"{name} is not supported")


def test_values_that_change_nothing_are_accepted(app):
    app.chat(
        response_format={"type": "text"},
        tools=None,
        tool_choice="none",
        use_beam_search=False,
        stream_interval=1,
        include_reasoning=True,
        thinking_token_budget=-1,
        kv_transfer_params={},
        user="me",
    )
    app.complete(prompt="x", suffix=None)


def test_fields_that_the_contract_ignores_are_ignored(app):
    for function_call in ("auto", "none", {"name": "f"}):
        app.chat(functions=[{"name": "f", "parameters": {}}], function_call=function_call)
    app.chat(store=True, metadata={"a": "b"}, service_tier="auto", verbosity="low", parallel_tool_calls=False)
    app.complete(prompt="x", best_of=3, user="me")


def test_unknown_fields_are_logged_once_a_name(app, caplog):
    with caplog.at_level(logging.WARNING, logger="headrace"):
        for _ in range(2):
            app.chat(store=True, metadata={}, service_tier="auto", user="me")
    assert sorted(record.getMessage().split("'")[1] for record in caplog.records) == [
        "metadata",
        "service_tier",
        "store",
    ]


def test_unknown_fields_under_strict_requests(make_app):
    app = make_app(api={"strict_requests": True})
    app.chat(user="me")
    error = refused(app.post(CHAT, {"messages": MESSAGES, "temprature": 1}))
    assert (error["param"], "temprature" in error["message"]) == ("temprature", True)
    error = refused(app.post(COMPLETIONS, {"prompt": "x", "stream": True, "stream_options": {"usage": True}}))
    assert error["param"] == "stream_options.usage"


def test_queue_limit(make_app):
    app = make_app(limits={"max_num_queued_reqs": 2})
    error = refused(app.post(COMPLETIONS, {"prompt": "x", "n": 3}), 503)
    assert error["type"] == "Service Unavailable"
    assert b'reason="max_num_queued_reqs"} 1.0' in app.get("/metrics").content


def test_no_chat_template(make_app):
    app = make_app(chat_template=None)
    assert "default chat template is no longer allowed" in refused(app.post(CHAT, {"messages": MESSAGES}))["message"]
    app.complete(prompt="x")


def test_unknown_path_and_method(app):
    assert app.get("/nope").json() == {"detail": "Not Found"}
    response = app.get(COMPLETIONS)
    assert (response.status_code, response.json()) == (405, {"detail": "Method Not Allowed"})


def test_a_bug_is_a_logged_500_without_internals(app, monkeypatch, caplog):
    def broken(*_, **__):
        raise RuntimeError("secret /root/.ssh/id")

    monkeypatch.setattr("headrace.api.openai.routes.usage_policy", broken)
    with caplog.at_level(logging.ERROR, logger="headrace"):
        error = refused(app.post(COMPLETIONS, {"prompt": "x"}), 500)
    assert error["type"] == "InternalServerError"
    assert "secret" not in json.dumps(error)
    assert "secret" in caplog.text


def test_a_bug_in_a_stream_is_an_error_event(app, monkeypatch):
    def broken(*_, **__):
        raise RuntimeError("secret")

    monkeypatch.setattr("headrace.api.openai.completion.CompletionChunk", broken)
    (event,) = app.stream(COMPLETIONS, prompt="x")
    assert event["error"] == {
        "message": "Internal server error.",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
    assert not app.engine.running


def test_paths_and_addresses_are_cleaned_from_engine_errors():
    from headrace.api.errors import envelope
    from headrace.core.errors import EngineError

    message = envelope(EngineError("cannot read /root/models/x.gguf: <Tensor object at 0x7f00ff>"))["error"]["message"]
    assert message == "cannot read <path>: <Tensor object>"
