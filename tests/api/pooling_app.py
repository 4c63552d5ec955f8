"""The app over real models that pool, in one event loop, and ways to call it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx

from headrace.api.app import create_app
from headrace.config.engine import EngineConfig
from headrace.config.sections import ServeConfig
from headrace.hub import open_checkpoint
from headrace.metrics import Metrics
from headrace.runtime import LocalEngine
from headrace.service import ServedModel, Services
from headrace.service.background import BackgroundLoop
from headrace.service.pooler import Pooler
from headrace.text import ChatTemplate, Tokenizer


class Engines:
    """Loaded models by name, for any number of apps."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self.loop = BackgroundLoop("engines")
        self.folders = folders
        self.tokenizers = {name: Tokenizer.load(open_checkpoint(str(path))) for name, path in folders.items()}
        self.engines = {name: LocalEngine(str(path), EngineConfig()) for name, path in folders.items()}
        for engine in self.engines.values():
            self.loop.run(engine.start())

    def close(self) -> None:
        for engine in self.engines.values():
            self.loop.run(engine.stop())
        self.loop.close()

    @contextlib.contextmanager
    def app(self, *names: str, template: str | None = None, **sections: dict[str, Any]) -> Iterator[PoolingApp]:
        """An app that serves these models. `sections`: changes of the config."""
        plain = ServeConfig()
        changed = {name: replace(getattr(plain, name), **changes) for name, changes in sections.items()}
        config = replace(plain, **changed)
        metrics = Metrics()
        models = []
        for name in names:
            named = replace(config.model, model=str(self.folders[name]), served_model_name=(name, f"{name}-alias"))
            model = ServedModel(replace(config, model=named).served[0])
            tokenizer = self.tokenizers[name]
            pooler = Pooler(
                self.engines[name],
                tokenizer,
                None if template is None else ChatTemplate(template, tokenizer.special_tokens),
                score_template=None,
                limits=config.limits,
                metrics=metrics.model(name),
                model_name=name,
            )
            model.open(pooler)
            models.append(model)
        yield PoolingApp(self, Services(models, metrics), config)
        for model in models:
            if model.loaded is not None:
                model.loaded.close()


class PoolingApp:
    """An app, and ways to call it."""

    def __init__(self, engines: Engines, services: Services, config: ServeConfig) -> None:
        self._engines = engines
        self.app = create_app(services, config)

    async def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        transport = httpx.ASGITransport(self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://headrace") as client:
            return await client.request(method, path, **options)

    def get(self, path: str, **options: Any) -> httpx.Response:
        return self._engines.loop.run(self.send("GET", path, **options))

    def post(self, path: str, body: Any, **options: Any) -> httpx.Response:
        return self._engines.loop.run(self.send("POST", path, json=body, **options))

    def ok(self, path: str, **body: Any) -> dict[str, Any]:
        """The body of an answer that must be a success."""
        response = self.post(path, body)
        assert response.status_code == 200, response.text
        return response.json()

    def refused(self, path: str, **body: Any) -> dict[str, Any]:
        """The error of an answer that must be a 400."""
        response = self.post(path, body)
        assert response.status_code == 400, response.text
        return response.json()["error"]
