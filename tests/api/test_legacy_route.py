"""POST /generate, as clients of the old demo server call it."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest
from envelopes import refused
from test_disconnect import Connection, until

from headrace.api.app import create_legacy_app
from headrace.config.sections import ServeConfig

GENERATE = "/generate"
PROMPT = "San Francisco is a"


def lines_of(response: httpx.Response) -> list[list[str]]:
    """The texts of each line of a stream that must be well formed."""
    assert response.status_code == 200, response.text
    *lines, rest = response.text.split("\n")
    assert rest == ""
    bodies = [json.loads(line) for line in lines]
    assert all(body.keys() == {"text"} for body in bodies)
    return [body["text"] for body in bodies]


def test_the_prompt_stands_in_front(app):
    app.says(" city.")
    assert app.ok(GENERATE, prompt=PROMPT, max_tokens=4) == {"text": [PROMPT + " city."]}
    assert app.engine.requests[0].prompt_ids == app.tokenizer.encode(PROMPT)


def test_the_defaults_are_the_old_ones(make_app):
    """A model's generation config has no say here."""
    app = make_app(defaults={"temperature": 0.1, "top_k": 3, "max_new_tokens": 5})
    app.ok(GENERATE, prompt=PROMPT)
    sampling = app.engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_k, sampling.max_tokens) == (1.0, 0, 16)


def test_one_text_a_choice(app):
    app.says(" city.")
    assert app.ok(GENERATE, prompt=PROMPT, n=3) == {"text": [PROMPT + " city."] * 3}


def test_a_stream_repeats_what_it_has_said(app):
    app.says(" city on a hill")
    response = app.post(GENERATE, {"prompt": PROMPT, "stream": True})
    assert "data:" not in response.text
    assert "[DONE]" not in response.text
    texts = [text for (text,) in lines_of(response)]
    assert texts[-1] == PROMPT + " city on a hill"
    for shorter, longer in zip([PROMPT, *texts], texts, strict=False):
        assert longer.startswith(shorter)
        assert len(longer) > len(shorter)


def test_a_stream_of_several_choices_shows_all_in_each_line(app):
    app.says(" city on a hill")
    lines = lines_of(app.post(GENERATE, {"prompt": PROMPT, "stream": True, "n": 3}))
    assert {len(line) for line in lines} == {3}
    assert lines[-1] == [PROMPT + " city on a hill"] * 3


def test_a_stream_without_text_has_one_line(app):
    app.engine.script.answer = [app.tokenizer.eos_token_id]
    assert lines_of(app.post(GENERATE, {"prompt": PROMPT, "stream": True})) == [[PROMPT]]


def test_several_answers_at_temperature_0_are_a_beam_search(app):
    ids = app.says(" city.")
    assert app.ok(GENERATE, prompt=PROMPT, n=3, temperature=0.0, max_tokens=8)["text"] == [PROMPT + " city."] * 3
    beam = app.engine.requests[0].beam
    assert (beam.width, beam.shown) == (3, False)
    assert len(ids) < 8


def test_a_beam_search_in_other_words(app):
    body = {"prompt": PROMPT, "n": 2, "best_of": 4, "use_beam_search": True, "temperature": 0}
    app.ok(GENERATE, **body, length_penalty=0.5, early_stopping="never")
    beam = app.engine.requests[0].beam
    assert (beam.width, beam.length_penalty, beam.early_stopping) == (4, 0.5, "never")


def test_best_of_alone_at_temperature_0_is_a_beam_search(app):
    app.ok(GENERATE, prompt=PROMPT, best_of=4, temperature=0)
    (request,) = app.engine.requests
    assert (request.beam.width, request.n) == (4, 1)


def test_one_greedy_answer_is_no_search(app):
    app.ok(GENERATE, prompt=PROMPT, n=1, temperature=0.0)
    assert app.engine.requests[0].beam is None


def test_a_streamed_search_shows_its_beams(app):
    app.says(" city on a hill")
    lines = lines_of(app.post(GENERATE, {"prompt": PROMPT, "stream": True, "n": 2, "temperature": 0.0}))
    assert app.engine.requests[0].beam.shown
    assert {len(line) for line in lines} == {2}
    assert len(lines) > 2
    assert lines[0][0].startswith(PROMPT)
    assert len(lines[0][0]) < len(lines[-1][0])
    assert all(len(text) > len(PROMPT) for line in lines for text in line)
    assert lines[-1] == [PROMPT + " city on a hill"] * 2


VALUES = {
    "top_p": 0.5,
    "top_k": 4,
    "min_p": 0.1,
    "seed": 11,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.5,
    "max_tokens": 5,
    "min_tokens": 2,
    "stop_token_ids": [9],
    "ignore_eos": True,
    "logit_bias": {"9": 3.0},
    "allowed_token_ids": [9, 10],
    "bad_words": ["word"],
    "temperature": 0.5,
}


@pytest.mark.parametrize("name", VALUES)
def test_each_parameter_reaches_the_engine(app, name):
    app.ok(GENERATE, prompt=PROMPT, **{"seed": 1})
    app.ok(GENERATE, prompt=PROMPT, **{"seed": 1, name: VALUES[name]})
    plain, changed = (request.sampling for request in app.engine.requests)
    assert plain != changed


def test_parameters_that_shape_text(app):
    app.says(" one two<|im_start|>!")
    (stopped,) = app.ok(GENERATE, prompt="x", stop="two")["text"]
    assert stopped == "x one "
    (shown,) = app.ok(GENERATE, prompt="x", stop=["two"], include_stop_str_in_output=True)["text"]
    assert shown == "x one two"
    (special,) = app.ok(GENERATE, prompt="x", skip_special_tokens=False)["text"]
    assert special == "x one two<|im_start|>!"


def test_best_of_draws_more(app):
    app.ok(GENERATE, prompt=PROMPT, n=2, best_of=5)
    assert app.engine.requests[0].n == 5


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"prompt": ""}, "prompt"),
        ({"temperature": 3}, "temperature"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 10_000}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 2, "temperature": 0, "use_beam_search": False}, "n"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 3, "stream": True}, "best_of"),
        ({"length_penalty": 2}, "length_penalty"),
        ({"logprobs": 1}, "logprobs"),
        ({"prompt_logprobs": 1}, "prompt_logprobs"),
        ({"logprob_token_ids": [1], "logprobs": 1}, "logprobs"),
        ({"detokenize": False}, "detokenize"),
        ({"model": "smol"}, "model"),
        ({"max_token": 5}, "max_token"),
        ({"prompt": "x " * 600}, "input_tokens"),
    ],
)
def test_a_wrong_key_or_value_is_refused_by_name(app, change, param):
    error = refused(app.post(GENERATE, {"prompt": PROMPT, **change}))
    assert error["param"] == param
    assert param in error["message"]
    assert not app.engine.requests


@pytest.mark.parametrize("change", [{"prompt": None}, {"prompt": [5]}, {"prompt": "x", "temperature": "hot"}])
def test_schema_failures(app, change):
    assert refused(app.post(GENERATE, change))["type"] == "Bad Request"


def test_an_engine_that_fails_ends_the_stream_with_an_error(app):
    app.engine.script.broken = frozenset(app.tokenizer.encode("x")[:1])
    assert refused(app.post(GENERATE, {"prompt": "x"}), 500)
    (line,) = app.post(GENERATE, {"prompt": "x", "stream": True}).text.splitlines()
    assert json.loads(line)["error"]["code"] == 500


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("beams", [True, False])
def test_closing_the_connection_aborts(app, stream, beams):
    word = app.says(" on", eos=False)
    app.engine.script.holds = True
    body = {"prompt": PROMPT, "n": 2, "max_tokens": 400, "ignore_eos": True, "stream": stream}
    if beams:
        app.engine.script.answer = word * 400
        body["temperature"] = 0

    async def scenario() -> None:
        connection = Connection(body)
        serving = asyncio.create_task(app.app(connection.scope(GENERATE), connection.receive, connection.send))
        await until(lambda: len(connection.sent) > 1 if stream else app.engine.running)
        connection.closed.set()
        await asyncio.wait_for(serving, 10)
        assert not app.engine.running
        assert len(app.engine.aborted) == 1
        if not stream:
            assert connection.sent[0]["status"] == 499

    asyncio.run(scenario())


def test_a_key_guards_it_on_a_server_that_has_one(make_app):
    app = make_app(http={"api_key": ("k",)})
    assert app.post(GENERATE, {"prompt": PROMPT}).status_code == 401
    assert app.post(GENERATE, {"prompt": PROMPT}, headers={"Authorization": "Bearer k"}).status_code == 200


def test_alone_it_has_its_own_routes_only(app):
    app.app = create_legacy_app(app.services, ServeConfig())
    assert app.get("/health").content == b""
    assert app.ok(GENERATE, prompt=PROMPT)["text"]
    for path in ("/v1/completions", "/inference/v1/generate"):
        assert app.post(path, {"prompt": "x"}).status_code == 404
