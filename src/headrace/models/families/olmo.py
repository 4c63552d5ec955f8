"""OLMo 2: norms on the output of each sublayer, and one over all query heads and one over all key heads."""

from __future__ import annotations

from headrace.models.config import Config, activation, sizes, uniform_layers
from headrace.models.family import Family
from headrace.models.spec import DecoderSpec, NormPlacement, QkNorm


def _olmo2(config: Config) -> DecoderSpec:
    attention_bias = bool(config.get("attention_bias", False))
    return DecoderSpec(
        **sizes(config),
        layers=uniform_layers(config),
        activation=activation(config),
        norm_placement=NormPlacement.OUTPUT,
        qk_norm=QkNorm.FULL,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
    )


OLMO2 = Family(architectures=("Olmo2ForCausalLM",), spec=_olmo2)
