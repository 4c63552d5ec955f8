"""POST /inference/v1/generate: ids in, ids out."""

from __future__ import annotations

import pytest
from envelopes import refused

from headrace.api.sampling import SamplingFields
from headrace.core.sampling import SamplingParams

GENERATE = "/inference/v1/generate"
PROMPT = [5, 6, 7]


@pytest.fixture
def generate(app):
    def send(**body):
        return app.ok(GENERATE, **{"token_ids": PROMPT, "sampling_params": {"max_tokens": 3}, **body})

    return send


def test_the_whole_answer(app, generate):
    ids = app.says(" Paris. It is", eos=False)
    body = generate(sampling_params={"max_tokens": len(ids)})
    assert body.pop("request_id").startswith("generate-tokens-")
    assert isinstance(body.pop("created"), int)
    assert body == {
        "model": "smol",
        "output_mode": "tokens",
        "choices": [
            {
                "index": 0,
                "finish_reason": "length",
                "stop_reason": None,
                "token_ids": ids,
                "logprobs": None,
                "routed_experts": None,
                "sampling_mask": None,
                "weight_versions": [{"version": "0", "start": 0, "end": len(ids)}],
            }
        ],
        "usage": {
            "prompt_tokens": 3,
            "total_tokens": 3 + len(ids),
            "completion_tokens": len(ids),
            "prompt_tokens_details": None,
            "completion_tokens_details": None,
        },
        "prompt_logprobs": None,
        "prompt_token_ids": None,
        "prompt_token_id_logprobs": None,
        "mm_placeholders": None,
        "metrics": None,
        "kv_transfer_params": None,
        "ec_transfer_params": None,
    }
    assert app.engine.requests[0].prompt_ids == PROMPT


def test_the_end_token_is_among_the_ids(app, generate):
    ids = app.says(" Paris")
    (choice,) = generate(sampling_params={})["choices"]
    assert choice["token_ids"] == [*ids, app.tokenizer.eos_token_id]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", None)


def test_a_stop_token_is_among_the_ids_and_named(app, generate):
    first, *_ = ids = app.says(" one two three")
    stop = ids[1]
    (choice,) = generate(sampling_params={"stop_token_ids": [stop]})["choices"]
    assert choice["token_ids"] == [first, stop]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", stop)


def test_without_max_tokens_the_context_is_filled(app, generate):
    for params in ({}, {"max_tokens": None}):
        app.engine.requests.clear()
        generate(sampling_params={"ignore_eos": True, **params})
        assert app.engine.requests[0].sampling.max_tokens == 512 - len(PROMPT)


def test_no_text_is_made_unless_it_is_needed(app, generate, monkeypatch):
    def touched(*_, **__):
        raise AssertionError("the tokenizer was used")

    for name in ("decoder", "encode", "decode", "token_text"):
        monkeypatch.setattr(type(app.tokenizer), name, touched)
    for params in ({}, {"detokenize": False}, {"detokenize": True}, {"logprobs": 2, "prompt_logprobs": 2}):
        generate(sampling_params={"max_tokens": 2, **params})
    with pytest.raises(AssertionError, match="tokenizer was used"):
        app.tokenizer.encode("x")


def test_a_stop_string_ends_the_ids(app, generate):
    ids = app.says(" one two three")
    (choice,) = generate(sampling_params={"stop": ["two"]})["choices"]
    assert choice["token_ids"] == ids[:2]
    assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", "two")
    assert "text" not in choice


def test_text_mode_adds_text_and_chat_logprobs(app, generate):
    ids = app.says(" Paris")
    (choice,) = generate(output_mode="text", sampling_params={"logprobs": 1})["choices"]
    assert choice["text"] == " Paris"
    assert choice["token_ids"] == [*ids, app.tokenizer.eos_token_id]
    first = choice["logprobs"]["content"][0]
    assert (first["token"], first["bytes"]) == (" Paris", list(b" Paris"))
    assert [entry["token"] for entry in first["top_logprobs"]] == [" Paris"]


def test_logprobs_in_ids(app, generate):
    app.engine.script.rank = 3
    paris, *_ = app.says(" Paris", eos=False)
    (choice,) = generate(sampling_params={"max_tokens": 1, "logprobs": 2})["choices"]
    assert choice["logprobs"] == {
        "content": [
            {
                "token_id": paris,
                "logprob": -0.5,
                "rank": 3,
                "top_logprobs": [
                    {"token_id": paris, "logprob": -0.5, "rank": 3},
                    {"token_id": paris + 1, "logprob": -0.5, "rank": 1},
                ],
            }
        ]
    }


def test_impossible_tokens_have_a_number(app, generate):
    app.engine.script.rank = 1000
    (choice,) = generate(sampling_params={"max_tokens": 1, "logprobs": 0})["choices"]
    (entry,) = choice["logprobs"]["content"]
    assert (entry["logprob"], entry["top_logprobs"]) == (-9999.0, [])


def test_certain_tokens_are_reported(app, generate):
    paris, *_ = app.says(" Paris", eos=False)
    params = {"max_tokens": 1, "logprobs": 0, "logprob_token_ids": [9, 8]}
    (choice,) = generate(sampling_params=params)["choices"]
    top = choice["logprobs"]["content"][0]["top_logprobs"]
    assert [(entry["token_id"], entry["rank"]) for entry in top] == [(paris, 1), (9, 100), (8, 101)]


def test_prompt_logprobs_have_text_in_text_mode_only(app, generate):
    first, *rest = generate(sampling_params={"max_tokens": 1, "prompt_logprobs": 0})["prompt_logprobs"]
    assert first is None
    assert rest == [{str(token): {"logprob": -0.5, "rank": 1, "decoded_token": None}} for token in PROMPT[1:]]
    spoken = generate(output_mode="text", sampling_params={"max_tokens": 1, "prompt_logprobs": 0})["prompt_logprobs"]
    assert spoken[1]["6"]["decoded_token"] == app.tokenizer.token_text(6, ())


def test_several_choices(app, generate):
    app.says(" Paris", eos=False)
    body = generate(sampling_params={"n": 3, "max_tokens": 2, "temperature": 0.5})
    assert [choice["index"] for choice in body["choices"]] == [0, 1, 2]
    assert body["usage"]["completion_tokens"] == 6
    assert body["usage"]["prompt_tokens"] == 3


def test_a_beam_search(app, generate):
    ids = app.says(" Paris is nice", eos=False)
    params = {"use_beam_search": True, "n": 2, "temperature": 0, "max_tokens": len(ids)}
    assert [choice["token_ids"] for choice in generate(sampling_params=params)["choices"]] == [ids, ids]
    beam = app.engine.requests[0].beam
    assert (beam.width, beam.shown) == (2, False)


def test_the_prompt_is_shown_if_asked_for(generate):
    assert generate(return_token_ids=True)["prompt_token_ids"] == PROMPT
    assert generate(return_token_ids=False)["prompt_token_ids"] is None


def test_ids_of_the_request(app, generate):
    assert generate(request_id="mine")["request_id"] == "generate-tokens-mine"
    body = {"token_ids": PROMPT, "sampling_params": {"max_tokens": 1}, "request_id": "mine"}
    named = app.post(GENERATE, body, headers={"X-Request-Id": "outer"})
    assert named.json()["request_id"] == "generate-tokens-outer"


def test_priority_and_salt_reach_the_engine(app):
    body = {"token_ids": PROMPT, "sampling_params": {"max_tokens": 1}, "priority": 7, "cache_salt": "grain"}
    app.post(GENERATE, body)
    app.post(GENERATE, body, headers={"X-Vllm-Priority": "-3"})
    first, second = app.engine.requests
    assert (first.priority, second.priority) == (7, -3)
    assert (first.cache_salt, second.cache_salt) == ("grain", "grain")


def test_the_generation_config_speaks_where_the_request_is_silent(make_app):
    app = make_app(defaults={"temperature": 0.25, "top_k": 9})
    app.ok(GENERATE, token_ids=PROMPT, sampling_params={"max_tokens": 1, "top_k": 3})
    sampling = app.engine.requests[0].sampling
    assert (sampling.temperature, sampling.top_k) == (0.25, 3)


def test_sampling_params_are_those_of_the_core():
    older = {name for name in SamplingFields.model_fields if name.startswith("guided_")}
    assert SamplingFields.model_fields.keys() - older == SamplingParams.__dataclass_fields__.keys()


VALUES = {
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 4,
    "min_p": 0.1,
    "seed": 11,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.5,
    "min_tokens": 2,
    "stop_token_ids": [9],
    "ignore_eos": True,
    "logit_bias": {"9": 3.0},
    "allowed_token_ids": [9, 10],
    "bad_words": ["word"],
    "prompt_logprobs": 3,
    "logprobs": 3,
}


@pytest.mark.parametrize("name", VALUES)
def test_each_parameter_reaches_the_engine(app, generate, name):
    generate(sampling_params={"max_tokens": 2, "temperature": 1.0, "seed": 1})
    generate(sampling_params={"max_tokens": 2, "temperature": 1.0, "seed": 1, name: VALUES[name]})
    plain, changed = (request.sampling for request in app.engine.requests)
    assert plain != changed


def test_numbers_may_be_strings(app, generate):
    generate(sampling_params={"max_tokens": "2", "temperature": "0.5"}, priority="4")
    (request,) = app.engine.requests
    assert (request.sampling.max_tokens, request.sampling.temperature, request.priority) == (2, 0.5, 4)


def test_a_stream(app):
    ids = app.says(" Paris. It is")
    body = {"token_ids": PROMPT, "sampling_params": {}, "request_id": "r", "return_token_ids": True}
    events = app.stream(GENERATE, **body)
    said = [*ids, app.tokenizer.eos_token_id]
    assert [event["choices"][0]["token_ids"] for event in events] == [[token] for token in said]
    first, *middle, last = events
    assert first == {
        "request_id": "generate-tokens-r",
        "output_mode": "tokens",
        "usage": None,
        "choices": [{"index": 0, "finish_reason": None, "stop_reason": None, "token_ids": ids[:1], "logprobs": None}],
        "prompt_token_ids": PROMPT,
    }
    assert all("prompt_token_ids" not in event for event in (*middle, last))
    assert last["choices"][0]["finish_reason"] == "stop"


def test_a_stream_of_text(app):
    app.says(" Paris. It is")
    events = app.stream(GENERATE, token_ids=PROMPT, sampling_params={"logprobs": 0}, output_mode="text")
    assert "".join(event["choices"][0]["text"] for event in events) == " Paris. It is"
    assert events[0]["choices"][0]["logprobs"]["content"][0]["token"] == " Paris"


def test_usage_of_a_stream(app):
    ids = app.says(" Paris. It is", eos=False)
    body = {"token_ids": PROMPT, "sampling_params": {"max_tokens": len(ids)}}
    *_, last = app.stream(GENERATE, **body, stream_options={"include_usage": True})
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 3, "total_tokens": 3 + len(ids), "completion_tokens": len(ids)}
    options = {"include_usage": True, "continuous_usage_stats": True}
    running = app.stream(GENERATE, **body, stream_options=options)
    assert [event["usage"]["completion_tokens"] for event in running] == [*range(1, len(ids) + 1), len(ids)]


def test_a_stream_of_several_choices_ends_each_once(app):
    ids = app.says(" Paris. It is", eos=False)
    events = app.stream(GENERATE, token_ids=PROMPT, sampling_params={"n": 2, "max_tokens": len(ids)})
    for index in range(2):
        mine = [choice for event in events for choice in event["choices"] if choice["index"] == index]
        assert [token for choice in mine for token in choice["token_ids"]] == ids
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(ids) - 1) + ["length"]


@pytest.mark.parametrize(
    ("change", "param", "words"),
    [
        ({"token_ids": []}, "token_ids", "empty"),
        ({"token_ids": [999999]}, "token_ids", "Token id 999999 is out of vocabulary"),
        ({"token_ids": [5] * 513}, "input_tokens", "maximum context length is 512 tokens"),
        ({"token_ids": [5] * 512}, "input_tokens", "at least 1 requested output token"),
        ({"sampling_params": {"temperature": 3}}, "temperature", "in [0, 2]"),
        ({"sampling_params": {"max_tokens": 600}}, "max_tokens", "max_model_len=512"),
        ({"sampling_params": {"n": 2, "temperature": 0}}, "n", "greedy"),
        ({"sampling_params": {"n": 257}}, "n", "at most max_num_seqs=256"),
        ({"sampling_params": {"best_of": 257}}, "best_of", "at most max_num_seqs=256"),
        ({"sampling_params": {"stop": ["x"], "detokenize": False}}, "stop", "detokenize"),
        ({"sampling_params": {"detokenize": False}, "output_mode": "text"}, "detokenize", "detokenize"),
        ({"sampling_params": {"stop_token_ids": [999999]}}, "stop_token_ids", "out of vocabulary"),
        ({"sampling_params": {"logprobs": 21}}, "logprobs", "greater than max allowed: 20"),
        ({"sampling_params": {"logprob_token_ids": [1]}}, "logprob_token_ids", "needs logprobs"),
        ({"sampling_params": {"prompt_logprobs": 1}, "stream": True}, "prompt_logprobs", "stream"),
        ({"sampling_params": {"use_beam_search": True}, "stream": True}, "use_beam_search", "stream"),
        ({"sampling_params": {"best_of": 2}, "stream": True}, "best_of", "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options", "only be defined when `stream=True`."),
        ({"cache_salt": "a/b"}, "cache_salt", "cache_salt"),
        ({"priority": 2**63}, "priority", "64-bit"),
        ({"request_id": "a\nb"}, "request_id", "printable"),
    ],
)
def test_values_that_make_no_sense(app, change, param, words):
    body = {"token_ids": PROMPT, "sampling_params": {}, **change}
    error = refused(app.post(GENERATE, body))
    assert (error["type"], error["param"]) == ("BadRequestError", param)
    assert words in error["message"]
    assert not app.engine.requests


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"token_ids": None}, "body.token_ids"),
        ({"token_ids": "5 6"}, "body.token_ids"),
        ({"token_ids": [5, -1]}, "body.token_ids"),
        ({"token_ids": [5, True]}, "body.token_ids"),
        ({"token_ids": [[5]]}, "body.token_ids"),
        ({"sampling_params": None}, "body.sampling_params"),
        ({"sampling_params": {"temperature": "hot"}}, "body.sampling_params.temperature"),
        ({"sampling_params": {"logprobs": "1"}}, "body.sampling_params.logprobs"),
        ({"output_mode": "speech"}, "body.output_mode"),
    ],
)
def test_schema_failures(app, change, param):
    error = refused(app.post(GENERATE, {"token_ids": PROMPT, "sampling_params": {}, **change}))
    assert (error["type"], error["param"]) == ("Bad Request", param)


@pytest.mark.parametrize(
    "name", ["features", "content_parts", "kv_transfer_params", "ec_transfer_params", "reasoning_parser_kwargs"]
)
def test_what_this_server_has_no_part_for_is_refused_by_name(app, name):
    body = {"token_ids": PROMPT, "sampling_params": {"max_tokens": 1}}
    error = refused(app.post(GENERATE, {**body, name: {"any": 1}}))
    assert error["param"] == name
    assert app.post(GENERATE, {**body, name: None}).status_code == 200


@pytest.mark.parametrize("name", ["guided_decoding", "extra_args", "repetition_detection"])
def test_sampling_params_that_are_not_implemented_are_refused_by_name(app, name):
    error = refused(app.post(GENERATE, {"token_ids": PROMPT, "sampling_params": {name: {"any": 1}}}))
    assert error["param"] == name


def test_unknown_fields_are_ignored_unless_the_server_is_strict(app, make_app):
    body = {"token_ids": PROMPT, "sampling_params": {"max_tokens": 1, "output_kind": 2}, "metadata": {}}
    assert app.post(GENERATE, body).status_code == 200
    error = refused(make_app(api={"strict_requests": True}).post(GENERATE, body))
    assert error["param"] in ("sampling_params.output_kind", "metadata")


def test_models_keys_and_methods(app, make_app):
    body = {"token_ids": PROMPT, "sampling_params": {"max_tokens": 1}}
    assert refused(app.post(GENERATE, {**body, "model": "nope"}), 404)["param"] == "model"
    assert app.ok(GENERATE, **body, model="smol-alias")["model"] == "smol"
    assert app.get(GENERATE).status_code == 405
    assert make_app(http={"api_key": ("k",)}).post(GENERATE, body).status_code == 401


def test_an_engine_that_fails_is_heard_of(app):
    app.engine.script.broken = frozenset({5})
    body = {"token_ids": PROMPT, "sampling_params": {}}
    assert refused(app.post(GENERATE, body), 500)["type"] == "InternalServerError"
    (event,) = app.stream(GENERATE, **body)
    assert event["error"]["code"] == 500


class TestTokensOnly:
    """A server that has loaded no tokenizer."""

    @pytest.fixture
    def bare(self, make_app):
        return make_app(model={"tokens_only": True})

    def test_ids_are_answered(self, bare):
        bare.says(" Paris")
        body = {"token_ids": PROMPT, "sampling_params": {"logprobs": 1, "prompt_logprobs": 1}}
        (choice,) = bare.ok(GENERATE, **body)["choices"]
        assert choice["finish_reason"] == "stop"
        bare.stream(GENERATE, token_ids=PROMPT, sampling_params={"detokenize": True})

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"output_mode": "text"}, "output_mode"),
            ({"sampling_params": {"stop": "x"}}, "stop"),
            ({"sampling_params": {"bad_words": ["x"]}}, "bad_words"),
        ],
    )
    def test_what_needs_text_is_refused(self, bare, change, param):
        error = refused(bare.post(GENERATE, {"token_ids": PROMPT, "sampling_params": {}, **change}), 403)
        assert (error["type"], error["param"]) == ("PermissionDeniedError", param)
        assert "--tokens-only" in error["message"]

    @pytest.mark.parametrize(
        ("path", "body"),
        [
            ("/v1/completions", {"prompt": "x"}),
            ("/v1/completions", {"prompt": [5]}),
            ("/v1/completions/render", {"prompt": "x"}),
            ("/v1/chat/completions", {"messages": [{"role": "user", "content": "Hi"}]}),
            ("/v1/chat/completions/render", {"messages": [{"role": "user", "content": "Hi"}]}),
            ("/tokenize", {"prompt": "x"}),
            ("/tokenize", {"messages": [{"role": "user", "content": "Hi"}]}),
            ("/detokenize", {"tokens": [5]}),
            ("/generate", {"prompt": "x"}),
        ],
    )
    def test_routes_of_text_say_why_not(self, bare, path, body):
        error = refused(bare.post(path, body), 403)
        assert error["type"] == "PermissionDeniedError"
        assert "--tokens-only" in error["message"]
        assert not bare.engine.requests

    def test_the_rest_is_there(self, bare):
        assert bare.get("/v1/models").json()["data"][0]["id"] == "smol"
        for path in ("/health", "/metrics", "/version"):
            assert bare.get(path).status_code == 200
