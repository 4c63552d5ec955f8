"""What models are for, in words, and what can be said of it before their files are there."""

from __future__ import annotations

from headrace.config.sections import ServedModelConfig
from headrace.core.pooling import PoolingTask
from headrace.hub import KNOWN, ModelRole, Runner

Use = Runner | PoolingTask
"""What a request wants of a model: to generate, or one of the tasks of pooling."""

GENERATE = Runner.GENERATE

_WORDS: dict[Use, str] = {
    GENERATE: "generate text",
    PoolingTask.EMBED: "embed",
    PoolingTask.CLASSIFY: "classify",
    PoolingTask.TOKEN_EMBED: "embed tokens",
    PoolingTask.TOKEN_CLASSIFY: "classify tokens",
}
_GENERATES = ModelRole(GENERATE)
_EMBEDS = ModelRole(Runner.POOLING, (PoolingTask.EMBED, PoolingTask.TOKEN_EMBED))
_CLASSIFIES = ModelRole(Runner.POOLING, (PoolingTask.CLASSIFY, PoolingTask.TOKEN_CLASSIFY))


def in_words(uses: tuple[Use, ...]) -> str:
    """Completes "The model can …"."""
    *most, last = (_WORDS[use] for use in uses)
    return f"{', '.join(most)} or {last}" if most else last


def does(role: ModelRole, use: Use) -> bool:
    return use is role.runner or use in role.tasks


def expected_role(config: ServedModelConfig) -> ModelRole | None:
    """By the flags or the name; None: only the checkpoint can tell."""
    runner, convert = config.engine.wanted_role
    if runner == GENERATE:
        return _GENERATES
    if convert in ("embed", "classify"):
        return _EMBEDS if convert == "embed" else _CLASSIFIES
    known = KNOWN.get(config.model.model)
    if known is None or runner != "auto":
        return None
    return _EMBEDS if known.task == "embed" else _GENERATES


def known_names(uses: tuple[Use, ...]) -> list[str]:
    """Known models that can be put to one of these uses."""
    return [
        name
        for name, known in KNOWN.items()
        if any(does(_EMBEDS if known.task == "embed" else _GENERATES, use) for use in uses)
    ]
