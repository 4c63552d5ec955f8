"""From a checkpoint, its role and the flags to the parts of an engine that pools."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch

from headrace.config.engine import EngineConfig
from headrace.config.pooler import PoolerConfig, read_pooler_config
from headrace.core.errors import BadRequest, ConfigError
from headrace.core.machine import usable_cores
from headrace.core.pooling import PoolingInfo, PoolingMode, PoolingParams, PoolingTask
from headrace.engine.assemble import build_decoder, build_encoder
from headrace.engine.backbone import Backbone, DecoderBackbone, EncoderBackbone
from headrace.engine.kv_cache import KvCache, size_cache
from headrace.engine.pooling_head import load_sentence_head, score_function
from headrace.engine.readout import Readout
from headrace.hub import Checkpoint, ModelRole, SentenceFiles, read_sentence_files
from headrace.kernels.cpu import CpuKernels
from headrace.models import Decoder, Encoder, EncoderBlueprint, PoolingBlueprint, read_pooling_blueprint
from headrace.models.encoder_family import labels
from headrace.models.functions import Function
from headrace.models.head import Head
from headrace.models.parameters import WeightReader
from headrace.weights import Contents, Progress, read_weights

STEP_TOKENS_PER_THREAD = 256
"""Enough to keep a thread of the native kernels busy. More in a step would make it no faster, and whoever comes next,
another engine of this process too, wait longer.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolingParts:
    """A loaded model that pools. `step_tokens` and `block_size`: what a step may hold, see `PoolingScheduler`."""

    backbone: Backbone
    readout: Readout
    info: PoolingInfo
    kernels: str
    precision: str
    vocab_size: int
    max_model_len: int
    step_tokens: int
    block_size: int


@dataclass(frozen=True, slots=True)
class _Limits:
    max_model_len: int
    step_tokens: int
    block_size: int


def load_pooling_parts(
    checkpoint: Checkpoint,
    role: ModelRole,
    config: EngineConfig,
    device: torch.device,
    kernels: CpuKernels | None,
    progress: Progress | None = None,
    memory_share: float = 1.0,
) -> PoolingParts:
    """Raises `BadCheckpoint` or `ConfigError`."""
    blueprint = read_pooling_blueprint(checkpoint.config, classifies=not role.embeds)
    files = read_sentence_files(checkpoint.path)
    head = Head(blueprint.head.layers, blueprint.backbone.spec.hidden_size, device)
    model: Encoder | Decoder[Any]
    if isinstance(blueprint.backbone, EncoderBlueprint):
        model = encoder = build_encoder(blueprint.backbone, checkpoint, config, device, kernels)
        _read(checkpoint, blueprint, model, head, progress)
        backbone: Backbone = EncoderBackbone(encoder, device)
        limits = _encoder_limits(encoder, config, files, kernels)
    else:
        model = decoder = build_decoder(blueprint.backbone, checkpoint, config, device, kernels)
        _read(checkpoint, blueprint, model, head, progress)
        kv_cache, limits = _memory(decoder, config, files, device, memory_share)
        backbone = DecoderBackbone(decoder, kv_cache, device)

    given = read_pooler_config(config.pooler_config)
    modes: tuple[PoolingMode, ...] = (given.mode or blueprint.head.mode,)
    if role.embeds and files.modules is not None:
        modes = files.modules.modes if given.mode is None else modes
        head = load_sentence_head(files.modules, model.spec.hidden_size * len(modes), device)
    info = _info(checkpoint, role, given, files, head, blueprint, limits)
    activation = Function.IDENTITY if role.embeds else score_function(checkpoint.config, files, info.num_labels)
    return PoolingParts(
        backbone=backbone,
        readout=Readout(head, info, given, modes=modes, activation=activation),
        info=info,
        kernels=model.kernels,
        precision=model.precision,
        vocab_size=model.spec.vocab_size,
        max_model_len=limits.max_model_len,
        step_tokens=limits.step_tokens,
        block_size=limits.block_size,
    )


def _read(
    checkpoint: Checkpoint,
    blueprint: PoolingBlueprint,
    model: Encoder | Decoder[Any],
    head: Head,
    progress: Progress | None,
) -> None:
    def load(weights: WeightReader) -> None:
        model.load(weights)
        head.load(weights)

    contents = Contents(
        parameters=(*blueprint.backbone.parameters, *head.parameters),
        is_spare=blueprint.is_spare,
        norm_offset=blueprint.norm_offset,
        name_of=blueprint.name_of,
    )
    read_weights(checkpoint, contents, load, progress)


def _encoder_limits(
    encoder: Encoder, config: EngineConfig, files: SentenceFiles, kernels: CpuKernels | None
) -> _Limits:
    """Raises `ConfigError` if a longer input is asked for than the model was made for."""
    longest = encoder.spec.max_position
    length = config.max_model_len
    if length is not None and length > longest:
        raise ConfigError(f"--max-model-len {length} is more than the {longest} tokens the model was made for.")
    if length is None:
        length = min(longest, files.max_seq_length or longest)
    step_tokens = config.max_num_batched_tokens
    if kernels is not None:
        step_tokens = min(step_tokens, STEP_TOKENS_PER_THREAD * (config.threads or usable_cores()))
    return _Limits(longest if length == -1 else length, step_tokens, 1)


def _memory(
    decoder: Decoder[Any], config: EngineConfig, files: SentenceFiles, device: torch.device, memory_share: float
) -> tuple[KvCache, _Limits]:
    """Keys and values of one step. Raises `ConfigError` if the flags leave no room for a sequence."""
    layout = decoder.kv_layout(config.block_size, config.kv_cache_dtype)
    longest = decoder.spec.max_position
    spec = replace(decoder.spec, max_position=min(longest, files.max_seq_length or longest))
    if config.max_model_len is not None:
        spec = decoder.spec
    num_blocks, max_model_len = size_cache(spec, config, layout, device, memory_share)
    in_a_step = max(config.max_num_batched_tokens, max_model_len)
    num_blocks = min(num_blocks, -(-in_a_step // config.block_size))
    kv_cache = KvCache(layout, num_layers=spec.num_layers, num_blocks=num_blocks, device=device)
    step_tokens = min(config.max_num_batched_tokens, num_blocks * config.block_size)
    return kv_cache, _Limits(max_model_len, step_tokens, config.block_size)


def _info(
    checkpoint: Checkpoint,
    role: ModelRole,
    given: PoolerConfig,
    files: SentenceFiles,
    head: Head,
    blueprint: PoolingBlueprint,
    limits: _Limits,
) -> PoolingInfo:
    """Raises `ConfigError` if the pooler is configured for what the model cannot do."""
    cuts = not blueprint.is_causal or files.modules is not None
    normalizes = files.modules is None or files.modules.normalizes
    info = PoolingInfo(
        tasks=role.tasks,
        embedding_size=head.out_features if role.embeds else None,
        max_seq_length=limits.max_model_len if cuts else None,
        type_vocab_size=blueprint.type_vocab_size,
        labels=() if role.embeds else labels(checkpoint.config),
        matryoshka_dimensions=_matryoshka(checkpoint) if role.embeds else None,
        use_activation=(normalizes or not role.embeds) if given.use_activation is None else given.use_activation,
        is_causal=blueprint.is_causal,
    )
    if given.dimensions is not None:
        try:
            info.check(PoolingParams(task=PoolingTask.EMBED, dimensions=given.dimensions))
        except BadRequest as error:
            raise ConfigError(f"--pooler-config: {error.message}") from None
    return info


def _matryoshka(checkpoint: Checkpoint) -> tuple[int, ...] | None:
    sizes = checkpoint.config.get("matryoshka_dimensions")
    if sizes:
        return tuple(sizes)
    return () if checkpoint.config.get("is_matryoshka") else None
