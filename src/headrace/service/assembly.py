"""From a loaded engine and the text of its model to what answers for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headrace.config.sections import LimitsConfig, ModelConfig
from headrace.runtime.client import EngineClient

if TYPE_CHECKING:
    from headrace.service.generation import Generator
    from headrace.service.model_text import ModelText
    from headrace.service.observer import RequestObserver
    from headrace.service.pooler import Pooler


def assemble(
    engine: EngineClient,
    text: ModelText,
    model: ModelConfig,
    limits: LimitsConfig,
    *,
    seed: int,
    metrics: RequestObserver | None,
    name: str,
) -> Generator | Pooler:
    """What the loaded `engine` is for. `name` is the model's in responses and messages."""
    if engine.info.pooling is not None:
        from headrace.service.pooler import Pooler  # imports numpy, which a generator does not need

        return Pooler(
            engine,
            text.tokenizer,
            text.template,
            score_template=text.score_template,
            limits=limits,
            metrics=metrics,
            model_name=name,
        )
    from headrace.service.generation import Generator

    return Generator(
        engine,
        text.tokenizer,
        text.template,
        limits=limits,
        seed=seed,
        defaults=text.sampling_defaults,
        eos_token_ids=text.eos_token_ids,
        formats=text.formats,
        structured_outputs=model.structured_outputs,
        metrics=metrics,
        model_name=name,
    )
