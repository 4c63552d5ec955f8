"""The whole app over a scripted engine and SmolLM2's real tokenizer and chat template."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from scripted_engine import Script, ScriptedEngine

from headrace.api.app import create_app
from headrace.config.sections import ServeConfig
from headrace.hub import Checkpoint, open_checkpoint
from headrace.metrics import Metrics
from headrace.service import ServedModel, Services
from headrace.service.generation import Generator
from headrace.service.model_text import answer_formats
from headrace.text import ChatTemplate, Tokenizer
from headrace.text.builtin_templates import BUILTIN_TEMPLATES

MAX_MODEL_LEN = 512


@dataclass
class App:
    """An app, and ways to call it. Each call runs in an event loop of its own."""

    app: FastAPI
    engine: ScriptedEngine
    services: Services
    tokenizer: Tokenizer

    def request(self, method: str, path: str, **options: Any) -> httpx.Response:
        async def send() -> httpx.Response:
            transport = httpx.ASGITransport(self.app)
            async with httpx.AsyncClient(transport=transport, base_url="http://headrace") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self.request("GET", path, **options)

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self.request("POST", path, json=body, **options)

    def ok(self, path: str, **body: Any) -> dict[str, Any]:
        """The body of an answer that must be a success."""
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def complete(self, **body: Any) -> dict[str, Any]:
        return self.ok("/v1/completions", **body)

    def chat(self, content: str = "Hi", **body: Any) -> dict[str, Any]:
        return self.ok("/v1/chat/completions", **{"messages": [{"role": "user", "content": content}], **body})

    def stream(self, path: str, **body: Any) -> list[dict[str, Any]]:
        """The events of a stream that must be well formed, without the final [DONE]."""
        response = self.post(path, {**body, "stream": True})
        assert response.status_code == 200, response.text
        assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
        return events_of(response.text)

    def stream_chat(self, **body: Any) -> list[dict[str, Any]]:
        return self.stream("/v1/chat/completions", **{"messages": [{"role": "user", "content": "Hi"}], **body})

    def says(self, text: str, *, eos: bool = True) -> list[int]:
        """Make the engine answer with `text`, and end there unless `eos` is false. Returns the ids."""
        ids = self.tokenizer.encode(text, add_special_tokens=False)
        self.engine.script.answer = [*ids, self.tokenizer.eos_token_id] if eos else ids
        return ids


def events_of(text: str) -> list[dict[str, Any]]:
    *events, done, rest = text.split("\n\n")
    assert (done, rest) == ("data: [DONE]", "")
    assert all(event.startswith("data: ") and "\n" not in event for event in events)
    return [json.loads(event.removeprefix("data: ")) for event in events]


@pytest.fixture(scope="session")
def checkpoint(smollm2_path: Path) -> Checkpoint:
    return open_checkpoint(str(smollm2_path))


@pytest.fixture(scope="session")
def tokenizer(checkpoint: Checkpoint) -> Tokenizer:
    return Tokenizer.load(checkpoint)


@pytest.fixture(scope="session")
def template(checkpoint: Checkpoint, tokenizer: Tokenizer) -> ChatTemplate:
    return ChatTemplate(checkpoint.chat_template, tokenizer.special_tokens)


@pytest.fixture(scope="session")
def tool_template(tokenizer: Tokenizer) -> ChatTemplate:
    """One that shows tools, which SmolLM2's own does not."""
    return ChatTemplate(BUILTIN_TEMPLATES["hermes"], tokenizer.special_tokens)


@pytest.fixture
def make_app(tokenizer: Tokenizer, template: ChatTemplate) -> Callable[..., App]:
    """`make_app(api={"strict_requests": True}, ...)`: changes of the config, by section."""

    def make(
        *,
        loaded: bool = True,
        chat_template: ChatTemplate | None = template,
        defaults: dict[str, Any] | None = None,
        names: tuple[str, ...] = ("smol", "smol-alias"),
        **sections: dict[str, Any],
    ) -> App:
        plain = ServeConfig()
        config = replace(
            plain, **{name: replace(getattr(plain, name), **changes) for name, changes in sections.items()}
        )
        script = Script(tokenizer.encode(" Paris"))
        engine = ScriptedEngine(script, vocab_size=tokenizer.vocab_size, max_model_len=MAX_MODEL_LEN)
        metrics = Metrics(engine_metrics=not config.logging.disable_log_stats)
        named = replace(config.model, model="/models/smol.gguf", served_model_name=names)
        model = ServedModel(replace(config, model=named).served[0])
        services = Services([model], metrics)
        if loaded:
            text_wanted = not config.model.tokens_only
            generator = Generator(
                engine,
                tokenizer if text_wanted else None,
                chat_template if text_wanted else None,
                limits=config.limits,
                seed=0,
                defaults=defaults or {},
                eos_token_ids=(tokenizer.eos_token_id,),
                formats=answer_formats(config.model),
                structured_outputs=config.model.structured_outputs,
                metrics=metrics.model(names[0]),
                model_name=names[0],
            )
            model.open(generator)
        return App(create_app(services, config), engine, services, tokenizer)

    return make


@pytest.fixture
def app(make_app: Callable[..., App]) -> App:
    return make_app()
