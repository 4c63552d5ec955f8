"""From the name of an architecture to a model."""

from __future__ import annotations

import torch

from headrace.core.errors import BadCheckpoint
from headrace.kernels.ops import Ops
from headrace.models.config import Config
from headrace.models.decoder import DecoderModel
from headrace.models.families import FAMILIES
from headrace.models.family import Family
from headrace.models.parameters import decoder_parameters

_BY_ARCHITECTURE = {name: family for family in FAMILIES for name in family.architectures}


def build_model(config: Config, ops: Ops, *, dtype: torch.dtype, device: torch.device) -> DecoderModel:
    """The model that `config` (the keys of a `config.json`) describes, without its weights.

    Raises `BadCheckpoint` for an architecture or a setting that is not supported.
    """
    family = _family(config)
    if (quantization := config.get("quantization_config")) is not None:
        method = quantization.get("quant_method", "unknown")
        raise BadCheckpoint(f"config.json: weights quantised with {method!r} are not supported; GGUF files are")
    spec = family.spec(config)
    return DecoderModel(
        spec,
        decoder_parameters(spec, family.names),
        ops,
        norm_offset=family.norm_offset,
        dtype=dtype,
        device=device,
    )


def _family(config: Config) -> Family:
    architectures = config.get("architectures") or []
    for name in architectures:
        if name in _BY_ARCHITECTURE:
            return _BY_ARCHITECTURE[name]
    wanted = ", ".join(architectures) or "none given"
    raise BadCheckpoint(f"architecture not supported: {wanted}; supported: {', '.join(sorted(_BY_ARCHITECTURE))}")
