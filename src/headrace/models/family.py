"""What a model family has to say: how its config reads and what its checkpoints call their tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.models.config import Config
from headrace.models.parameters import LayerNames
from headrace.models.spec import DecoderSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """`architectures` as in `config.json`; `norm_offset` is added to the norm weights of a safetensors checkpoint."""

    architectures: tuple[str, ...]
    spec: Callable[[Config], DecoderSpec]
    names: LayerNames = field(default_factory=LayerNames)
    norm_offset: float = 0.0
