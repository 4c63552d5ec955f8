"""Reads the keys that the families share out of a Hugging Face `config.json`.

Rotary settings come in two spellings: `rope_theta` with `rope_scaling`, and since transformers 5 `rope_parameters`,
one set or one per layer type.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from headrace.core.errors import BadCheckpoint
from headrace.kernels.ops import AttentionRules
from headrace.models.spec import (
    Activation,
    DynamicScaling,
    FrequencyDivisors,
    LayerSpec,
    LinearScaling,
    Llama3Scaling,
    RopeScaling,
    RopeSpec,
    YarnScaling,
)

Config = Mapping[str, Any]

FULL = "full_attention"
SLIDING = "sliding_attention"

_ACTIVATIONS = {"silu": Activation.SILU, "swish": Activation.SILU, "gelu_pytorch_tanh": Activation.GELU_TANH}


def required(config: Config, key: str) -> Any:
    """The value of `key`. Raises `BadCheckpoint` if the config has none."""
    value = config.get(key)
    if value is None:
        raise BadCheckpoint(f"config.json: {key!r} is missing")
    return value


def activation(config: Config, key: str = "hidden_act") -> Activation:
    name = config.get(key) or "silu"
    if name not in _ACTIVATIONS:
        raise BadCheckpoint(f"config.json: {key} {name!r} is not supported; supported: {', '.join(_ACTIVATIONS)}")
    return _ACTIVATIONS[name]


def head_dim(config: Config) -> int:
    return config.get("head_dim") or required(config, "hidden_size") // required(config, "num_attention_heads")


def sizes(config: Config) -> dict[str, Any]:
    """The fields of a `DecoderSpec` that every family spells the same way."""
    heads = required(config, "num_attention_heads")
    kv_heads = config.get("num_key_value_heads") or heads
    if heads % kv_heads:
        raise BadCheckpoint(
            f"config.json: num_attention_heads {heads} is not a multiple of num_key_value_heads {kv_heads}"
        )
    return {
        "vocab_size": required(config, "vocab_size"),
        "hidden_size": required(config, "hidden_size"),
        "intermediate_size": required(config, "intermediate_size"),
        "num_heads": heads,
        "num_kv_heads": kv_heads,
        "head_dim": head_dim(config),
        "max_position": max_position(config),
        "norm_eps": required(config, "rms_norm_eps"),
        "tied_embeddings": bool(config.get("tie_word_embeddings", False)),
    }


def max_position(config: Config) -> int:
    """The longest sequence: `max_position_embeddings`, unless the rotary scaling says that it reaches further."""
    length = required(config, "max_position_embeddings")
    match rope(config, FULL).scaling:
        case DynamicScaling(factor, original) | YarnScaling(factor=factor, original_max_position=original):
            return max(length, int(original * factor))
    return length


def uniform_layers(config: Config, *, scale: float | None = None, window: int | None = None) -> tuple[LayerSpec, ...]:
    """Layers that are all alike. `scale` None: one over the square root of the head dimension."""
    return layers(config, [FULL] * required(config, "num_hidden_layers"), scale=scale, full_window=window)


def layers(
    config: Config,
    layer_types: list[str],
    *,
    scale: float | None = None,
    full_window: int | None = None,
    sliding_window: int | None = None,
    soft_cap: float | None = None,
) -> tuple[LayerSpec, ...]:
    """One `LayerSpec` for each of `layer_types`, `"full_attention"` or `"sliding_attention"`."""
    count = required(config, "num_hidden_layers")
    if len(layer_types) != count:
        raise BadCheckpoint(f"config.json: layer_types has {len(layer_types)} entries for {count} layers")
    scale = head_dim(config) ** -0.5 if scale is None else scale
    windows = {FULL: full_window, SLIDING: sliding_window}
    kinds = {}
    for kind in set(layer_types):
        if kind not in windows:
            raise BadCheckpoint(f"config.json: layer type {kind!r} is not supported; supported: {', '.join(windows)}")
        if kind == SLIDING and sliding_window is None:
            raise BadCheckpoint("config.json: layers of type 'sliding_attention' need 'sliding_window'")
        kinds[kind] = LayerSpec(rope(config, kind), AttentionRules(scale, windows[kind], soft_cap))
    return tuple(kinds[kind] for kind in layer_types)


def rope(config: Config, layer_type: str) -> RopeSpec:
    """The rotary embedding of layers of `layer_type`. Raises `BadCheckpoint` naming a type that is not supported."""
    parameters = _rope_parameters(config, layer_type)
    fraction = parameters.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    theta = float(parameters.get("rope_theta") or config.get("rope_theta") or 10000.0)
    return RopeSpec(int(head_dim(config) * fraction), theta, _scaling(config, parameters))


def _rope_parameters(config: Config, layer_type: str) -> Config:
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    return parameters.get(layer_type, parameters) or {}


def _rope_type(parameters: Config) -> str:
    return parameters.get("rope_type") or parameters.get("type") or "default"


def _scaling(config: Config, parameters: Config) -> RopeScaling | None:
    longest = required(config, "max_position_embeddings")
    original = (
        parameters.get("original_max_position_embeddings") or config.get("original_max_position_embeddings") or longest
    )
    match kind := _rope_type(parameters):
        case "default":
            return None
        case "linear":
            return LinearScaling(_number(parameters, "factor"))
        case "dynamic":
            return DynamicScaling(_number(parameters, "factor"), longest)
        case "llama3":
            low, high = _number(parameters, "low_freq_factor"), _number(parameters, "high_freq_factor")
            return Llama3Scaling(_number(parameters, "factor"), low, high, original)
        case "yarn":
            return _yarn(parameters, longest, original)
        case "gguf_freqs":
            return FrequencyDivisors(tuple(parameters["factors"]))
    raise BadCheckpoint(
        f"config.json: rotary embeddings of type {kind!r} are not supported; "
        "supported: default, linear, dynamic, llama3, yarn"
    )


def _yarn(parameters: Config, longest: int, original: int) -> YarnScaling:
    """YaRN's settings; the attention factor is section 3.4 of arXiv 2309.00071, or DeepSeek's ratio of two of them."""
    factor = float(parameters.get("factor") or longest / original)

    def magnitude(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    attention_factor = parameters.get("attention_factor")
    if attention_factor is None:
        weight, weight_all = parameters.get("mscale"), parameters.get("mscale_all_dim")
        attention_factor = magnitude(weight) / magnitude(weight_all) if weight and weight_all else magnitude(1.0)
    return YarnScaling(
        factor=factor,
        original_max_position=original,
        attention_factor=float(attention_factor),
        beta_fast=float(parameters.get("beta_fast") or 32.0),
        beta_slow=float(parameters.get("beta_slow") or 1.0),
        truncate=bool(parameters.get("truncate", True)),
    )


def _number(parameters: Config, key: str) -> float:
    value = parameters.get(key)
    if not isinstance(value, (int, float)):
        raise BadCheckpoint(f"config.json: rotary type {_rope_type(parameters)!r} needs {key!r}, got {value!r}")
    return float(value)
