"""Qwen2 (and 2.5): biases on queries, keys and values. Qwen3: a norm on each query and key head instead."""

from __future__ import annotations

from headrace.models.config import FULL, SLIDING, Config, activation, layers, required, sizes
from headrace.models.family import Family
from headrace.models.spec import DecoderSpec, LayerSpec, QkNorm


def _layers(config: Config) -> tuple[LayerSpec, ...]:
    """The sliding window, where it is switched on at all, covers the layers from `max_window_layers` on."""
    window = config.get("sliding_window") if config.get("use_sliding_window") else None
    count = required(config, "num_hidden_layers")
    first = config.get("max_window_layers", 28) if window is not None else count
    kinds = config.get("layer_types") or [SLIDING if layer >= first else FULL for layer in range(count)]
    return layers(config, kinds, sliding_window=window)


def _qwen2(config: Config) -> DecoderSpec:
    return DecoderSpec(**sizes(config), layers=_layers(config), activation=activation(config), qkv_bias=True)


def _qwen3(config: Config) -> DecoderSpec:
    attention_bias = bool(config.get("attention_bias", False))
    return DecoderSpec(
        **sizes(config),
        layers=_layers(config),
        activation=activation(config),
        qk_norm=QkNorm.HEAD,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
    )


QWEN2 = Family(architectures=("Qwen2ForCausalLM",), spec=_qwen2)
QWEN3 = Family(architectures=("Qwen3ForCausalLM",), spec=_qwen3)
