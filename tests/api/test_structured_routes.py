"""The form of answers, as each route is asked for it: what reaches the engine, and what is refused beforehand."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest
from envelopes import refused

from headrace.api.runpod.inputs import InputDefaults, read_input
from headrace.config.sections import ModelConfig
from headrace.config.structured import StructuredOutputsConfig
from headrace.core.errors import BadRequest, ConfigError

COMPLETIONS = "/v1/completions"
CHAT = "/v1/chat/completions"
TOKENS = "/inference/v1/generate"
LEGACY = "/generate"
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"]}
AS_FORMAT = {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA, "strict": True}}
TAG = {"structures": [{"begin": "<f>", "schema": SCHEMA, "end": "</f>"}], "triggers": ["<f>"]}

BODIES = {
    COMPLETIONS: {"prompt": "Hi", "max_tokens": 2},
    CHAT: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2},
}


def grammar(app: Any, path: str = COMPLETIONS, **asked: Any) -> str | None:
    """What the engine got of a request that must be accepted."""
    app.ok(path, **BODIES[path], **asked)
    return app.engine.requests[-1].sampling.grammar


WAYS = [
    ([{"response_format": {"type": "text"}}, {}, {"response_format": None}], None),
    (
        [
            {"response_format": AS_FORMAT},
            {"structured_outputs": {"json": SCHEMA}},
            {"structured_outputs": {"json": json.dumps(SCHEMA), "regex": None}},
            {"guided_json": SCHEMA},
            {"guided_json": json.dumps(SCHEMA), "guided_decoding_backend": "outlines"},
            {"response_format": AS_FORMAT, "structured_outputs": {"choice": ["a"]}},
            {"response_format": {"type": "text"}, "structured_outputs": {"json": SCHEMA}},
        ],
        "integer",
    ),
    ([{"response_format": {"type": "json_object"}}, {"structured_outputs": {"json_object": True}}], "object"),
    ([{"structured_outputs": {"regex": "[xyz]{3}"}}, {"guided_regex": "[xyz]{3}"}], "[xyz]{3}"),
    ([{"structured_outputs": {"choice": ["good", "bad"]}}, {"guided_choice": ["good", "bad"]}], "good"),
    ([{"structured_outputs": {"grammar": 'root ::= "q"'}}, {"guided_grammar": 'root ::= "q"'}], "q"),
    (
        [
            {"response_format": {"type": "structural_tag", **TAG}},
            {"structured_outputs": {"structural_tag": json.dumps(TAG)}},
        ],
        "</f>",
    ),
    (
        [
            {"guided_json": SCHEMA, "guided_whitespace_pattern": "[ ]{0,7}"},
            {"structured_outputs": {"json": SCHEMA, "whitespace_pattern": "[ ]{0,7}"}},
            {"response_format": AS_FORMAT, "guided_whitespace_pattern": "[ ]{0,7}"},
        ],
        "[ ]{0,7}",
    ),
]


@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_ways_to_ask_for_the_same(app, path):
    for ways, told in WAYS:
        first, *others = (grammar(app, path, **asked) for asked in ways)
        assert all(other == first for other in others)
        assert first is None if told is None else told in first


def test_token_requests_and_the_legacy_route_take_it_too(app):
    wanted = grammar(app, structured_outputs={"json": SCHEMA})
    for params in ({"structured_outputs": {"json": SCHEMA}}, {"guided_json": SCHEMA}):
        app.ok(TOKENS, token_ids=[400], sampling_params={"max_tokens": 2, **params})
        assert app.engine.requests[-1].sampling.grammar == wanted
    app.ok(LEGACY, prompt="Hi", max_tokens=2, guided_json=SCHEMA)
    assert app.engine.requests[-1].sampling.grammar == wanted


def test_a_rendered_request_keeps_it(app):
    rendered = app.post("/v1/chat/completions/render", {**BODIES[CHAT], "response_format": AS_FORMAT}).json()
    assert app.post(TOKENS, rendered).status_code == 200
    assert app.engine.requests[-1].sampling.grammar == grammar(app, CHAT, response_format=AS_FORMAT)


BAD = [
    ({"response_format": {"type": "json_schema"}}, "response_format", "needs json_schema"),
    (
        {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
        "response_format",
        "needs json_schema",
    ),
    ({"response_format": {"type": "yaml"}}, "response_format", "json_schema or structural_tag, got 'yaml'"),
    ({"response_format": {"type": "structural_tag"}}, "response_format", "needs a format, or structures"),
    ({"structured_outputs": {}}, "structured_outputs", "must have one of json"),
    ({"structured_outputs": {"json": SCHEMA, "regex": "a"}}, "structured_outputs", "only use one kind of constraints"),
    ({"structured_outputs": {"choice": []}}, "structured_outputs", "at least one text"),
    ({"structured_outputs": {"regex": "("}}, "structured_outputs", "unclosed group"),
    ({"structured_outputs": {"grammar": "start: x"}}, "structured_outputs", "unknown name"),
    (
        {"structured_outputs": {"json": {"type": "integer", "minimum": 2, "maximum": 1}}},
        "structured_outputs",
        "greater",
    ),
    ({"structured_outputs": {"json": SCHEMA}, "guided_regex": "a"}, "guided_regex", "two ways"),
    ({"guided_json": SCHEMA, "guided_choice": ["a"]}, "guided_json", "only use one kind of constraints"),
    ({"guided_choice": []}, "guided_choice", "at least one text"),
    ({"guided_json": "{"}, "guided_json", "not valid JSON"),
    ({"guided_regex": "(?=a)"}, "guided_regex", "look-around"),
    ({"guided_choice": ["a"], "use_beam_search": True, "n": 2}, "guided_choice", "use_beam_search"),
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("path", [COMPLETIONS, CHAT])
def test_what_cannot_be_met_is_refused_before_the_first_byte(app, path, stream):
    for asked, parameter, reason in BAD:
        error = refused(app.post(path, {**BODIES[path], **asked, "stream": stream}))
        assert (error["param"], error["type"]) == (parameter, "BadRequestError"), asked
        assert reason in error["message"]
    assert not app.engine.requests


@pytest.mark.parametrize("asked", [{"structured_outputs": {"json": 3}}, {"guided_choice": "a"}, {"response_format": 1}])
def test_a_wrong_type_is_a_validation_error(app, asked):
    error = refused(app.post(COMPLETIONS, {**BODIES[COMPLETIONS], **asked}))
    assert "validation error" in error["message"]
    assert error["param"].startswith(f"body.{next(iter(asked))}")


def test_token_requests_refuse_by_name(app):
    body = {"token_ids": [400], "sampling_params": {"structured_outputs": {"regex": "("}}}
    assert refused(app.post(TOKENS, body))["param"] == "structured_outputs"


def test_a_server_without_a_tokenizer_cannot_hold_answers_to_a_form(make_app):
    app = make_app(model={"tokens_only": True})
    body = {"token_ids": [400], "sampling_params": {"structured_outputs": {"regex": "a"}}}
    assert refused(app.post(TOKENS, body), 403)["param"] == "structured_outputs"


def test_strict_servers_know_the_fields(make_app):
    app = make_app(api={"strict_requests": True})
    assert grammar(app, CHAT, response_format=AS_FORMAT) is not None
    error = refused(app.post(CHAT, {**BODIES[CHAT], "structured_outputs": {"regex": "a", "speed": 3}}))
    assert error["param"] == "structured_outputs.speed"


# ---- jobs


def native(**given: Any) -> Any:
    return read_input({"prompt": "Hi", **given}, InputDefaults()).sampling.structured_outputs


def test_jobs_take_it_among_their_sampling_params():
    assert native() is None
    assert native(sampling_params={"guided_choice": ["a", "b"]}).choice == ["a", "b"]
    assert native(sampling_params={"structured_outputs": {"json": SCHEMA}}).json == SCHEMA
    assert native(guided_regex="a+").parameter == "guided_regex"


@pytest.mark.parametrize(
    ("given", "parameter"),
    [
        ({"guided_choice": "a"}, "guided_choice"),
        ({"guided_choice": []}, "guided_choice"),
        ({"structured_outputs": "json"}, "structured_outputs"),
        ({"structured_outputs": {}}, "structured_outputs"),
    ],
)
def test_jobs_refuse_it_by_name(given, parameter):
    with pytest.raises(BadRequest) as caught:
        native(sampling_params=given)
    assert caught.value.parameter == parameter


def test_jobs_in_openai_format_pass_it_on():
    job = read_input(
        {"prompt": "Hi", "use_openai_format": True, "sampling_params": {"guided_regex": "a+"}}, InputDefaults()
    )
    assert job.body["guided_regex"] == "a+"


# ---- the server's own rules


def test_rules_of_the_server_hold_for_every_request(make_app, caplog):
    plain = grammar(make_app(), structured_outputs={"json": SCHEMA, "disable_any_whitespace": True})
    with caplog.at_level(logging.INFO, logger="headrace"):
        app = make_app(
            model={"structured_outputs_config": {"disable_any_whitespace": True, "backend": "xgrammar"}},
        )
        assert grammar(app, structured_outputs={"json": SCHEMA}) == plain
    assert "backend=xgrammar" in caplog.text
    closed = grammar(
        make_app(model={"structured_outputs_config": {"disable_additional_properties": True}}), guided_json=SCHEMA
    )
    assert closed is not None
    assert "additionalProperties" in closed


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"backend": "magic"}, "backend must be one of auto, guidance, xgrammar"),
        ({"disable_any_whitespaces": True}, "did you mean disable_any_whitespace"),
        ({"enable_in_reasoning": "yes"}, "enable_in_reasoning must be true or false, got 'yes'"),
    ],
)
def test_rules_that_make_no_sense_are_refused_at_start(given, reason):
    with pytest.raises(ConfigError, match=reason):
        ModelConfig(structured_outputs_config=given)


def test_rules_are_read_from_their_flag():
    config = ModelConfig(structured_outputs_config={"backend": "auto", "enable_in_reasoning": True})
    assert config.structured_outputs == StructuredOutputsConfig(enable_in_reasoning=True)
