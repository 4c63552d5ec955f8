"""Phi-3: as Llama, with queries, keys and values in one tensor of the checkpoint, gate and up in another."""

from __future__ import annotations

from headrace.models.config import Config, activation, sizes, uniform_layers
from headrace.models.family import Family
from headrace.models.parameters import LayerNames
from headrace.models.spec import DecoderSpec


def _phi3(config: Config) -> DecoderSpec:
    return DecoderSpec(
        **sizes(config),
        layers=uniform_layers(config, window=config.get("sliding_window")),
        activation=activation(config),
    )


PHI3 = Family(
    architectures=("Phi3ForCausalLM",),
    spec=_phi3,
    names=LayerNames(qkv=("self_attn.qkv_proj",), gate_up=("mlp.gate_up_proj",)),
)
