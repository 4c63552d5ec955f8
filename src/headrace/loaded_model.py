"""A model in this process, with the event loop that it and its calls live on."""

from __future__ import annotations

import difflib
from collections.abc import Coroutine, Mapping
from dataclasses import fields
from typing import Any, TypeVar

from headrace.config.engine import EngineConfig
from headrace.config.rules import rules_of
from headrace.config.sections import LimitsConfig, ModelConfig
from headrace.config.values import read_value
from headrace.core.errors import BadRequest, ConfigError
from headrace.hub import open_checkpoint
from headrace.runtime import LocalEngine
from headrace.service import Generator
from headrace.service.assembly import assemble
from headrace.service.background import BackgroundLoop
from headrace.service.model_text import load_model_text
from headrace.service.pooler import Pooler
from headrace.text import Tokenizer

T = TypeVar("T")


class LoadedModel:
    """Loads when it is made. Raises `StartupError` if that is impossible."""

    def __init__(self, config: ModelConfig, engine_config: EngineConfig, limits: LimitsConfig, seed: int) -> None:
        checkpoint = open_checkpoint(config.model, revision=config.revision, overrides=engine_config.hf_overrides)
        text = load_model_text(config, checkpoint)
        self._engine = LocalEngine(str(checkpoint.path), engine_config)
        self._loop = BackgroundLoop("headrace-llm")
        try:
            self._loop.run(self._engine.start())
        except BaseException:
            self._loop.close()
            raise
        self._runs = assemble(self._engine, text, config, limits, seed=seed, metrics=None, name=config.model)

    @property
    def generator(self) -> Generator:
        """Raises `BadRequest` if this is not what the model is for."""
        runs = self._runs
        if isinstance(runs, Generator):
            return runs
        raise BadRequest(f"{runs.model_name} makes no text; it can do: {', '.join(runs.tasks)}.", parameter="model")

    @property
    def pooler(self) -> Pooler:
        """Raises as `generator`."""
        runs = self._runs
        if isinstance(runs, Pooler):
            return runs
        raise BadRequest(
            f"{runs.model_name} generates text. LLM({runs.model_name!r}, runner='pooling') makes vectors with it.",
            parameter="model",
        )

    @property
    def tokenizer(self) -> Tokenizer:
        return self._runs.tokenizer

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """The result of `work`, which is ended if the waiting is interrupted (Ctrl-C)."""
        return self._loop.run(work)

    def close(self) -> None:
        """Free it. To be called once."""
        self._runs.close()
        self._loop.run(self._engine.stop())
        self._loop.close()


def read_engine_config(options: Mapping[str, Any]) -> EngineConfig:
    """Values may be spelled as on the command line: `dtype="half"`, `max_model_len="4k"`. Raises `ConfigError`."""
    known = [field.name for field in fields(EngineConfig)]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(known)}."
            raise ConfigError(f"LLM has no option {name}; {hint}")
    rules = rules_of(EngineConfig)
    return EngineConfig(**{name: read_value(rules[name], value, name) for name, value in options.items()})
