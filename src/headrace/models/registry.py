"""From the name of an architecture to a model."""

from __future__ import annotations

from headrace.core.errors import BadCheckpoint
from headrace.models.config import Config
from headrace.models.decoder import Blueprint
from headrace.models.families import FAMILIES
from headrace.models.family import Family
from headrace.models.parameters import decoder_parameters

_BY_ARCHITECTURE = {name: family for family in FAMILIES for name in family.architectures}


def read_blueprint(config: Config) -> Blueprint:
    """The model that `config` (the keys of a `config.json`) describes.

    Raises `BadCheckpoint` for an architecture or a setting that is not supported.
    """
    family = _family(config)
    if (quantization := config.get("quantization_config")) is not None:
        method = quantization.get("quant_method", "unknown")
        raise BadCheckpoint(f"config.json: weights quantised with {method!r} are not supported; GGUF files are")
    spec = family.spec(config)
    return Blueprint(spec=spec, parameters=decoder_parameters(spec, family.names), norm_offset=family.norm_offset)


def _family(config: Config) -> Family:
    architectures = config.get("architectures") or []
    for name in architectures:
        if name in _BY_ARCHITECTURE:
            return _BY_ARCHITECTURE[name]
    wanted = ", ".join(architectures) or "none given"
    raise BadCheckpoint(f"architecture not supported: {wanted}; supported: {', '.join(sorted(_BY_ARCHITECTURE))}")
