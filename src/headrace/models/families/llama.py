"""Llama (SmolLM2 too) and Mistral: norms on the input of each sublayer, grouped queries, a gated feed-forward layer."""

from __future__ import annotations

from headrace.models.config import Config, activation, sizes, uniform_layers
from headrace.models.family import Family
from headrace.models.spec import DecoderSpec


def _llama(config: Config) -> DecoderSpec:
    attention_bias = bool(config.get("attention_bias", False))
    return DecoderSpec(
        **sizes(config),
        layers=uniform_layers(config),
        activation=activation(config),
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        mlp_bias=bool(config.get("mlp_bias", False)),
    )


def _mistral(config: Config) -> DecoderSpec:
    return DecoderSpec(
        **sizes(config),
        # transformers reads a config without the key as if it said 4096; newer models say null.
        layers=uniform_layers(config, window=config.get("sliding_window", 4096)),
        activation=activation(config),
    )


LLAMA = Family(architectures=("LlamaForCausalLM",), spec=_llama)
MISTRAL = Family(architectures=("MistralForCausalLM",), spec=_mistral)
