"""What a checkpoint is for: new text, vectors, or scores. By its files, unless flags say otherwise."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace.config.engine import EngineConfig
from headrace.config.pooler import read_pooler_config
from headrace.core.errors import BadCheckpoint, ConfigError
from headrace.core.pooling import PoolingTask
from headrace.hub.checkpoint import Checkpoint
from headrace.hub.sentence_files import read_sentence_files

_GENERATES = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
_CLASSIFIES_TOKENS = ("ForTokenClassification",)
_CLASSIFIES = ("ForSequenceClassification", *_CLASSIFIES_TOKENS, "ClassificationModel")
_EMBEDS = ("EmbeddingModel", "ForTextEncoding", "RewardModel", "ForMaskedLM", "ForPreTraining", "Model")
_GGUF_LAST = 3
"""What a GGUF file calls pooling by the last token, for which decoders that embed are trained."""


class Runner(StrEnum):
    """The kind of engine that a checkpoint needs."""

    GENERATE = "generate"
    POOLING = "pooling"


@dataclass(frozen=True, slots=True)
class ModelRole:
    """What a model is to do. `tasks`: of one that pools, those it can do, its default first; else empty."""

    runner: Runner
    tasks: tuple[PoolingTask, ...] = ()

    @property
    def embeds(self) -> bool:
        return PoolingTask.EMBED in self.tasks


def model_role(checkpoint: Checkpoint, config: EngineConfig) -> ModelRole:
    """Raises `ConfigError` if the flags ask for what cannot be had of the checkpoint, saying what can; `BadCheckpoint`
    if its files do not say what it is for.
    """
    own = _own_tasks(checkpoint)
    runner, convert = config.wanted_role
    if runner == "auto":
        pools = own is not None or convert in ("embed", "classify")
        runner = Runner.POOLING if pools else Runner.GENERATE
    if runner == Runner.GENERATE:
        _check_generates(checkpoint, convert)
        return ModelRole(Runner.GENERATE)
    tasks = _converted_tasks(checkpoint, own, convert)
    default = read_pooler_config(config.pooler_config).task
    if default is None:
        return ModelRole(Runner.POOLING, tasks)
    if default not in tasks:
        raise ConfigError(f"--pooler-config: task {default}: {checkpoint.name} can do: {', '.join(tasks)}.")
    return ModelRole(Runner.POOLING, (default, *(task for task in tasks if task != default)))


def _architecture(checkpoint: Checkpoint) -> str:
    return (checkpoint.config.get("architectures") or ["none given"])[0]


def _own_tasks(checkpoint: Checkpoint) -> tuple[PoolingTask, ...] | None:
    """The tasks that the checkpoint was made for; None: it was made to generate."""
    architecture = _architecture(checkpoint)
    if architecture.endswith(_CLASSIFIES_TOKENS):
        return (PoolingTask.TOKEN_CLASSIFY,)
    if architecture.endswith(_CLASSIFIES):
        return (PoolingTask.CLASSIFY, PoolingTask.TOKEN_CLASSIFY)
    if _is_embedder(checkpoint):
        return _embedding_tasks(checkpoint)
    if architecture.endswith(_GENERATES):
        return None
    if architecture.endswith(_EMBEDS):
        return _embedding_tasks(checkpoint)
    raise BadCheckpoint(
        f"{checkpoint.path}: nothing is known of architecture {architecture!r}; names end in "
        f"{', '.join((*_GENERATES, *_CLASSIFIES, *_EMBEDS))}"
    )


def _is_embedder(checkpoint: Checkpoint) -> bool:
    """Whether files beside the weights, or a GGUF file itself, say how to pool, whatever the architecture is called."""
    if checkpoint.gguf is None:
        return read_sentence_files(checkpoint.path).modules is not None
    kind = checkpoint.gguf.metadata.get("general.architecture")
    return checkpoint.gguf.metadata.get(f"{kind}.pooling_type") == _GGUF_LAST


def _converted_tasks(
    checkpoint: Checkpoint, own: tuple[PoolingTask, ...] | None, convert: str
) -> tuple[PoolingTask, ...]:
    """What the checkpoint can do as a model that pools. Raises `ConfigError`."""
    architecture = _architecture(checkpoint)
    if convert == "none" and own is None:
        raise ConfigError(
            f"--convert none: {checkpoint.name} ({architecture}) generates text, and pools only if it is converted: "
            "--convert embed."
        )
    if convert == "classify" and not architecture.endswith(_CLASSIFIES):
        raise ConfigError(
            f"--convert classify: {checkpoint.name} ({architecture}) has no layer that makes scores; it can "
            f"{'generate text, or ' if own is None else ''}embed: --convert embed. Its scores for pairs are then how "
            "alike their vectors are."
        )
    return _embedding_tasks(checkpoint) if convert == "embed" or own is None else own


def _embedding_tasks(checkpoint: Checkpoint) -> tuple[PoolingTask, ...]:
    modules = read_sentence_files(checkpoint.path).modules
    if modules is not None and len(modules.modes) > 1:
        return (PoolingTask.EMBED,)  # its vectors are of another kind than those of its tokens
    return (PoolingTask.EMBED, PoolingTask.TOKEN_EMBED)


def _check_generates(checkpoint: Checkpoint, convert: str) -> None:
    """Raises `ConfigError`."""
    architecture = _architecture(checkpoint)
    if convert not in ("auto", "none"):
        raise ConfigError(f"--convert {convert}: a model is converted to pool, not to generate: --runner pooling.")
    if not architecture.endswith(_GENERATES):
        raise ConfigError(
            f"--runner generate: {checkpoint.name} ({architecture}) is not a model that generates text; it can run "
            "with --runner pooling."
        )
