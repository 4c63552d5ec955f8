"""The real tokenizer and template of SmolLM2, and generators over a scripted engine."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scripted_client import ScriptedEngine

from headrace.config.sections import LimitsConfig
from headrace.hub import Checkpoint, open_checkpoint
from headrace.service import Generator
from headrace.text import ChatTemplate, Tokenizer


@pytest.fixture(scope="session")
def smollm2(smollm2_path: Path) -> Checkpoint:
    return open_checkpoint(str(smollm2_path))


@pytest.fixture(scope="session")
def tokenizer(smollm2: Checkpoint) -> Tokenizer:
    return Tokenizer.load(smollm2)


@pytest.fixture(scope="session")
def template(smollm2: Checkpoint, tokenizer: Tokenizer) -> ChatTemplate:
    assert smollm2.chat_template is not None
    return ChatTemplate(smollm2.chat_template, tokenizer.special_tokens)


MakeGenerator = Callable[..., Generator]


@pytest.fixture
def make_generator(tokenizer: Tokenizer, template: ChatTemplate) -> Iterator[MakeGenerator]:
    """Makes generators over a scripted engine and closes them."""
    made: list[Generator] = []

    def make(engine: ScriptedEngine, **options: Any) -> Generator:
        settings: dict[str, Any] = {
            "limits": LimitsConfig(),
            "seed": 0,
            "defaults": {},
            "eos_token_ids": (2,),
            "metrics": None,
            "model_name": "smol",
            "template": template,
        }
        settings.update(options)
        chosen_template = settings.pop("template")
        generator = Generator(engine, tokenizer, chosen_template, **settings)
        made.append(generator)
        return generator

    yield make
    for generator in made:
        generator.close()
