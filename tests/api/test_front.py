"""What stands in front of the routes: keys, CORS, request ids, prefixes; and the routes for operators."""

from __future__ import annotations

import re

import pytest

from headrace import __version__
from headrace.runtime.client import EngineState

KEYS = {"api_key": ("k1", "k2")}
ORIGIN = {"Origin": "http://ui.example"}


def bearer(key, scheme="Bearer"):
    return {"Authorization": f"{scheme} {key}"}


def test_guarded_paths_need_a_key(make_app):
    app = make_app(http=KEYS)
    assert app.get("/v1/models", headers=bearer("k2")).status_code == 200
    assert app.get("/v1/models", headers=bearer("k1", "bEARER")).status_code == 200
    for headers in ({}, bearer("k3"), bearer("k1", "Basic"), bearer(""), {"Authorization": "k1"}, bearer("ké")):
        response = app.get("/v1/models", headers={name: value.encode() for name, value in headers.items()})
        assert response.status_code == 401
        error = response.json()["error"]
        assert (error["type"], error["code"], error["param"]) == ("AuthenticationError", 401, None)
    for path in ("/v1/nope", "/v2/anything/run", "/inference/v1/generate"):
        assert app.get(path).status_code == 401
    assert app.post("/v1/completions", {"prompt": "x"}).status_code == 401


def test_other_paths_are_open(make_app):
    app = make_app(http=KEYS)
    for path in ("/", "/health", "/ping", "/version", "/load", "/metrics", "/docs", "/openapi.json"):
        assert app.get(path).status_code == 200, path
    assert app.post("/tokenize", {"prompt": "x"}).status_code == 200
    assert app.request("OPTIONS", "/v1/models").status_code == 405


def test_without_keys_any_is_accepted(app):
    assert app.get("/v1/models", headers=bearer("EMPTY")).status_code == 200


def test_root_path_is_optional_and_no_way_around_keys(make_app):
    app = make_app(http={**KEYS, "root_path": "/llm/"})
    for path in ("/v1/models", "/llm/v1/models"):
        assert app.get(path).status_code == 401
        assert app.get(path, headers=bearer("k1")).status_code == 200
    assert app.get("/llm/health").status_code == 200
    assert app.get("/llmv1/models", headers=bearer("k1")).status_code == 404


def test_cors_is_closed_by_default(app):
    preflight = {**ORIGIN, "Access-Control-Request-Method": "POST"}
    response = app.request("OPTIONS", "/v1/chat/completions", headers=preflight)
    assert (response.status_code, response.text) == (400, "Disallowed CORS origin")
    assert "access-control-allow-origin" not in app.get("/v1/models", headers=ORIGIN).headers


def test_cors_opened_shows_on_401_too(make_app):
    app = make_app(http={**KEYS, "allowed_origins": ("*",)})
    preflight = {
        **ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type",
    }
    response = app.request("OPTIONS", "/v1/chat/completions", headers=preflight)
    assert response.status_code == 200
    assert "authorization" in response.headers["access-control-allow-headers"]
    response = app.get("/v1/models", headers=ORIGIN)
    assert (response.status_code, response.headers["access-control-allow-origin"]) == (401, "*")


def test_request_id_of_the_header_is_the_bodys(make_app):
    plain, flagged = make_app(), make_app(http={"enable_request_id_headers": True})
    for app in (plain, flagged):
        response = app.post("/v1/completions", {"prompt": "x"}, headers={"X-Request-Id": "abc"})
        assert response.json()["id"] == "cmpl-abc"
        assert response.headers.get("x-request-id") == ("abc" if app is flagged else None)


def test_request_id_of_the_body(make_app):
    app = make_app(http={"enable_request_id_headers": True})
    response = app.post("/v1/completions", {"prompt": "x", "request_id": "mine"})
    assert (response.json()["id"], response.headers["x-request-id"]) == ("cmpl-mine", "mine")


def test_fresh_request_ids(make_app):
    assert re.fullmatch("cmpl-[0-9a-f]{16}", make_app().complete(prompt="x")["id"])
    app = make_app(http={"enable_request_id_headers": True, **KEYS})
    response = app.post("/v1/completions", {"prompt": "x"}, headers=bearer("k1"))
    assert response.json()["id"] == "cmpl-" + response.headers["x-request-id"]
    for path in ("/v1/models", "/nope", "/health"):
        assert re.fullmatch("[0-9a-f]{32}", app.get(path).headers["x-request-id"])


def test_before_the_model_is_loaded(make_app):
    app = make_app(loaded=False)
    for path in ("/health", "/ping"):
        response = app.get(path)
        assert (response.status_code, response.content) == (503, b"")
    for response in (
        app.get("/v1/models"),
        app.get("/v1/models/smol"),
        app.post("/v1/completions", {"prompt": "x"}),
        app.post("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}]}),
        app.post("/tokenize", {"prompt": "x"}),
        app.post("/detokenize", {"tokens": [1]}),
    ):
        assert response.status_code == 503
        assert response.json()["error"]["type"] == "ServiceUnavailableError"
    for path in ("/", "/version", "/metrics", "/load"):
        assert app.get(path).status_code == 200


@pytest.mark.parametrize("state", [EngineState.DEAD, EngineState.RESTARTING])
def test_health_with_a_dead_engine(app, state):
    assert app.get("/health").status_code == 200
    assert app.request("POST", "/ping").status_code == 200
    app.engine.state = state
    response = app.get("/health")
    assert (response.status_code, response.content) == (503, b"")


def test_models(app):
    body = app.get("/v1/models").json()
    assert body["object"] == "list"
    assert [card["id"] for card in body["data"]] == ["smol", "smol-alias"]
    card = body["data"][0]
    assert card.keys() == {"id", "object", "created", "owned_by", "root", "parent", "max_model_len", "permission"}
    assert (card["owned_by"], card["root"], card["max_model_len"]) == ("headrace", "/models/smol.gguf", 512)
    assert card["permission"][0]["allow_logprobs"] is True
    assert app.get("/v1/models/smol").json() == card


def test_model_names_with_slashes(make_app):
    app = make_app(names=("org/model",))
    for path in ("/v1/models/org/model", "/v1/models/org%2Fmodel"):
        assert app.get(path).json()["id"] == "org/model"
    response = app.get("/v1/models/nope")
    assert (response.status_code, response.json()["error"]["type"]) == (404, "NotFoundError")


def test_version(app):
    assert app.get("/version").json() == {"version": __version__}


def test_home_page(app):
    page = app.get("/").text
    assert "<strong>smol</strong>: ready" in page
    assert "curl http://headrace/v1/chat/completions" in page
    assert 'href="docs"' in page


def test_home_page_escapes_the_model_name(make_app):
    assert "<script>" not in make_app(names=("<script>",)).get("/").text


def test_documentation_shows_the_request_schemas(app):
    document = app.get("/openapi.json").json()
    for path, schema in (("/v1/completions", "CompletionRequest"), ("/v1/chat/completions", "ChatRequest")):
        body = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]["schema"]
        assert body == {"$ref": f"#/components/schemas/{schema}"}
        assert "temperature" in document["components"]["schemas"][schema]["properties"]
    assert "StreamOptions" in document["components"]["schemas"]


def test_documentation_can_be_hidden(make_app):
    app = make_app(http={"disable_fastapi_docs": True})
    assert [app.get(path).status_code for path in ("/docs", "/redoc", "/openapi.json")] == [404] * 3
    assert 'href="docs"' not in app.get("/").text


def test_tokenize_text(app):
    ids = app.tokenizer.encode("Hello world")
    assert app.ok("/tokenize", prompt="Hello world") == {
        "count": 2,
        "max_model_len": 512,
        "tokens": ids,
        "token_strs": None,
    }
    assert app.ok("/tokenize", prompt="Hello world", return_token_strs=True)["token_strs"] == ["Hello", "Ġworld"]
    assert app.ok("/tokenize", prompt="")["tokens"] == []


def test_tokenize_chat(app):
    messages = [{"role": "user", "content": "Hi"}]
    body = app.ok("/tokenize", messages=messages)
    app.ok("/v1/chat/completions", messages=messages)
    assert body["tokens"] == app.engine.requests[0].prompt_ids
    shorter = app.ok("/tokenize", messages=messages, add_generation_prompt=False)
    assert shorter["count"] < body["count"]
    for body in ({}, {"prompt": "x", "messages": messages}):
        assert app.post("/tokenize", body).status_code == 400


def test_detokenize(app):
    ids = [*app.tokenizer.encode("Hello"), app.tokenizer.eos_token_id]
    assert app.ok("/detokenize", tokens=ids) == {"prompt": "Hello<|im_end|>"}
    assert app.ok("/detokenize", tokens=[10**9]) == {"prompt": ""}
    response = app.post("/detokenize", {"tokens": [-1]})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "tokens")


def test_tokenizer_info_behind_its_flag(make_app):
    assert make_app().get("/tokenizer_info").status_code == 404
    info = make_app(api={"enable_tokenizer_info_endpoint": True}).get("/tokenizer_info").json()
    assert info["eos_token"] == "<|im_end|>"
    assert {"tokenizer_class", "bos_token"} <= info.keys()


def test_log_of_requests(make_app, caplog):
    app = make_app(logging={"enable_log_requests": True, "max_log_len": 5})
    with caplog.at_level("INFO", logger="headrace.api"):
        app.post("/v1/completions", {"prompt": "Hello world"}, headers={"X-Request-Id": "abc"})
    (message,) = (record.getMessage() for record in caplog.records)
    assert message.startswith("request cmpl-abc: prompt 'Hello', SamplingParams(")


def test_server_metrics(app):
    app.complete(prompt="x", max_tokens=3)
    app.post("/v1/completions", {"prompt": ""})
    app.get("/nope")
    app.get("/health")
    text = app.get("/metrics").text
    assert 'http_requests_total{handler="/v1/completions",method="POST",status="2xx"} 1.0' in text
    assert 'http_requests_total{handler="/v1/completions",method="POST",status="4xx"} 1.0' in text
    assert 'http_requests_total{handler="none",method="GET",status="4xx"} 1.0' in text
    assert 'handler="/health"' not in text
    assert 'vllm:request_success_total{engine="0",finished_reason="length",model_name="smol"} 1.0' in text
    assert 'vllm:time_to_first_token_seconds_count{engine="0",model_name="smol"} 1.0' in text


def test_without_log_stats_there_are_no_engine_metrics(make_app):
    app = make_app(logging={"disable_log_stats": True})
    app.complete(prompt="x")
    text = app.get("/metrics").text
    assert "vllm:" not in text
    assert "http_requests_total" in text


def test_two_apps_count_apart(make_app):
    one, other = make_app(), make_app()
    one.complete(prompt="x")
    assert "handler=" not in other.get("/metrics").text
