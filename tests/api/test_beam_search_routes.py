"""Beam search on completions and chat: what reaches the engine, what is refused, and the answers of a real model."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.api.app import create_app
from headrace.config.engine import EngineConfig
from headrace.config.sections import ServeConfig
from headrace.core.request import BeamSearch
from headrace.metrics import Metrics
from headrace.runtime import LocalEngine
from headrace.service import ServedModel, Services
from headrace.service.generation import Generator
from headrace.text import ChatTemplate, Tokenizer

ROUTES = {
    "/v1/completions": {"prompt": "Hi"},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
}


@pytest.fixture(params=ROUTES)
def route(request: pytest.FixtureRequest) -> str:
    return request.param


def body(route: str, **changes: Any) -> dict[str, Any]:
    return {**ROUTES[route], "use_beam_search": True, "n": 2, "max_tokens": 6, **changes}


def refusal(app: Any, route: str, **changes: Any) -> dict[str, Any]:
    response = app.post(route, body(route, **changes))
    assert response.status_code == 400, response.text
    return response.json()["error"]


@pytest.mark.parametrize(
    ("fields", "beam"),
    [
        ({}, BeamSearch(width=2)),
        ({"length_penalty": 0}, BeamSearch(width=2, length_penalty=0.0)),
        ({"early_stopping": True}, BeamSearch(width=2, early_stopping=True)),
        ({"early_stopping": False}, BeamSearch(width=2, early_stopping=False)),
        ({"early_stopping": "never"}, BeamSearch(width=2, early_stopping="never")),
        ({"early_stopping": None, "length_penalty": None}, BeamSearch(width=2)),
        ({"n": 1}, BeamSearch(width=1)),
        ({"temperature": 0}, BeamSearch(width=2)),
    ],
    ids=str,
)
def test_what_reaches_the_engine(app, route: str, fields: dict[str, Any], beam: BeamSearch) -> None:
    app.says(" Paris.")
    app.ok(route, **body(route, **fields))
    (request,) = app.engine.requests
    assert (request.beam, request.n) == (beam, fields.get("n", 2))


def test_without_the_switch_there_is_no_search(app, route: str) -> None:
    app.ok(route, **body(route, use_beam_search=False, length_penalty=1.0, early_stopping=False))
    assert app.engine.requests[0].beam is None


def test_the_answer(app) -> None:
    ids = app.says(" Paris.")
    answer = app.complete(**body("/v1/completions", return_token_ids=True))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    for choice in answer["choices"]:
        assert (choice["text"], choice["token_ids"]) == (" Paris.", ids)
        assert (choice["finish_reason"], choice["stop_reason"]) == ("stop", app.tokenizer.eos_token_id)
    assert answer["usage"]["completion_tokens"] == 2 * len(ids)


def test_the_end_of_sequence_token_is_kept_on_request(app) -> None:
    ids = app.says(" Paris.")
    fields = body("/v1/completions", return_token_ids=True, include_stop_str_in_output=True)
    assert app.complete(**fields)["choices"][0]["token_ids"] == [*ids, app.tokenizer.eos_token_id]


def test_what_has_no_effect_on_a_search(app) -> None:
    ids = app.says(" Paris.")
    fields = {"stop": ["Par"], "stop_token_ids": ids[:1], "seed": 3, "presence_penalty": 2, "logit_bias": {"5": 9}}
    (choice, _) = app.complete(**body("/v1/completions", **fields))["choices"]
    assert (choice["text"], choice["finish_reason"]) == (" Paris.", "stop")


def test_chat_answers_too(app) -> None:
    app.says("Paris.")
    answer = app.chat(use_beam_search=True, n=3, temperature=0)
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["Paris."] * 3


def test_several_prompts(app) -> None:
    app.says(" Paris.")
    answer = app.complete(**body("/v1/completions", prompt=["a", "b"]))
    assert [choice["index"] for choice in answer["choices"]] == [0, 1, 2, 3]


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"stream": True}, "use_beam_search"),
        ({"n": 11}, "n"),
        ({"length_penalty": 51}, "length_penalty"),
        ({"length_penalty": "x"}, "length_penalty"),
        ({"early_stopping": "always"}, "early_stopping"),
        ({"use_beam_search": False, "length_penalty": 2.0}, "length_penalty"),
        ({"use_beam_search": False, "early_stopping": True}, "early_stopping"),
    ],
    ids=str,
)
def test_refused_by_name(app, route: str, fields: dict[str, Any], parameter: str) -> None:
    error = refusal(app, route, **fields)
    assert error["param"].removeprefix("body.") == parameter
    assert parameter in error["message"]
    assert app.engine.requests == []


def test_what_logprobs_of_a_search_are_not_for(app) -> None:
    assert refusal(app, "/v1/completions", echo=True, logprobs=1)["param"] == "echo"
    assert refusal(app, "/v1/completions", logprobs=1, logprob_token_ids=[1])["param"] == "logprob_token_ids"
    assert refusal(app, "/v1/chat/completions", logprobs=True, logprob_token_ids=[1])["param"] == "logprob_token_ids"


def test_echo_without_logprobs(app) -> None:
    app.says(" Paris.")
    answer = app.complete(**body("/v1/completions", echo=True))
    assert [choice["text"] for choice in answer["choices"]] == ["Hi Paris."] * 2


def test_a_search_by_a_real_model(
    smollm2_path: Path, smollm2_reference: Any, tokenizer: Tokenizer, template: ChatTemplate
) -> None:
    """Completions of several beams with logprobs; transformers finds the same."""
    import torch

    prompt, width, length = "SELECT name, age FROM users WHERE", 4, 10
    fields = {"prompt": prompt, "use_beam_search": True, "n": width, "max_tokens": length}
    fields |= {"length_penalty": 0, "early_stopping": "never", "logprobs": 1, "return_token_ids": True}

    async def complete() -> dict[str, Any]:
        engine = LocalEngine(str(smollm2_path), EngineConfig(dtype="float32", max_model_len=256))
        await engine.start()
        config, metrics = ServeConfig(), Metrics(engine_metrics=False)
        model = ServedModel(config.served[0])
        services = Services([model], metrics)
        generator = Generator(
            engine,
            tokenizer,
            template,
            limits=config.limits,
            seed=0,
            defaults={},
            eos_token_ids=(tokenizer.eos_token_id,),
            metrics=metrics.model(model.name),
            model_name=model.name,
        )
        model.open(generator)
        transport = httpx.ASGITransport(create_app(services, config))
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://headrace", timeout=60) as client:
                response = await client.post("/v1/completions", json=fields)
                assert response.status_code == 200, response.text
                return response.json()
        finally:
            generator.close()
            await engine.stop()

    choices = asyncio.run(complete())["choices"]
    ids = torch.tensor([tokenizer.encode(prompt)])
    found = smollm2_reference.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        num_beams=width,
        num_return_sequences=width,
        max_new_tokens=length,
        do_sample=False,
        length_penalty=0.0,
        early_stopping="never",
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=0,
        return_dict_in_generate=True,
        output_scores=True,
    )
    outputs = found.sequences[:, ids.shape[1] :].tolist()
    assert [choice["token_ids"] for choice in choices] == outputs
    assert [choice["text"] for choice in choices] == [tokenizer.decode(output) for output in outputs]
    assert [sum(choice["logprobs"]["token_logprobs"]) for choice in choices] == pytest.approx(
        found.sequences_scores.tolist(), abs=2e-3
    )
    for choice in choices:
        assert len(choice["logprobs"]["tokens"]) == length
        assert all(1 <= len(top) <= 2 for top in choice["logprobs"]["top_logprobs"])
