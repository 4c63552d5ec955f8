"""Gemma 2 and Gemma 3 (text only): norms before and after each sublayer, layers with and without a sliding window."""

from __future__ import annotations

from typing import Any

from headrace.core.errors import BadCheckpoint
from headrace.models.config import FULL, SLIDING, Config, activation, layers, required, sizes
from headrace.models.family import Family
from headrace.models.parameters import LayerNames
from headrace.models.spec import DecoderSpec, NormPlacement, QkNorm

_DEFAULTS = {
    "tie_word_embeddings": True,
    "rms_norm_eps": 1e-6,
    "head_dim": 256,
    "query_pre_attn_scalar": 256,
    "hidden_activation": "gelu_pytorch_tanh",
    "sliding_window": 4096,
}
"""Gemma's configs leave out what equals the defaults of transformers' config classes."""

_GLOBAL_THETA, _LOCAL_THETA = 1_000_000.0, 10_000.0


def _gemma2(given: Config) -> DecoderSpec:
    config = _with_defaults(given, {"attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0})
    return _gemma(config, period=2, qk_norm=QkNorm.NONE)


def _gemma3(given: Config) -> DecoderSpec:
    config = _with_defaults(given, {})
    config["rope_parameters"] = _rope_parameters(config)
    period = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    return _gemma(config, period=period, qk_norm=QkNorm.HEAD)


def _gemma(config: Config, *, period: int, qk_norm: QkNorm) -> DecoderSpec:
    """`period`: the last of so many layers has no window, where the config does not list the layer types."""
    if config.get("use_bidirectional_attention"):
        raise BadCheckpoint("config.json: use_bidirectional_attention is set: not a model that generates text")
    count = required(config, "num_hidden_layers")
    attention_bias = bool(config.get("attention_bias", False))
    return DecoderSpec(
        **sizes(config),
        layers=layers(
            config,
            config.get("layer_types") or [FULL if (layer + 1) % period == 0 else SLIDING for layer in range(count)],
            scale=config["query_pre_attn_scalar"] ** -0.5,
            sliding_window=config["sliding_window"],
            soft_cap=config.get("attn_logit_softcapping"),
        ),
        activation=activation(config, "hidden_activation"),
        norm_placement=NormPlacement.BOTH,
        qk_norm=qk_norm,
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        embedding_scale=config["hidden_size"] ** 0.5,
        logit_soft_cap=config.get("final_logit_softcapping"),
    )


def _with_defaults(given: Config, particular: dict[str, Any]) -> dict[str, Any]:
    # A soft cap that is null is switched off; any other null means the default.
    caps = {key: value for key, value in given.items() if key.endswith("_softcapping")}
    return _DEFAULTS | particular | {key: value for key, value in given.items() if value is not None} | caps


def _rope_parameters(config: Config) -> Config:
    """One set per layer type, from either spelling; only layers without a window are scaled."""
    if config.get("rope_parameters"):
        return config["rope_parameters"]
    return {
        FULL: {**(config.get("rope_scaling") or {}), "rope_theta": config.get("rope_theta", _GLOBAL_THETA)},
        SLIDING: {"rope_type": "default", "rope_theta": config.get("rope_local_base_freq", _LOCAL_THETA)},
    }


_NAMES = LayerNames(mlp_input_norm="pre_feedforward_layernorm")

GEMMA2 = Family(architectures=("Gemma2ForCausalLM",), spec=_gemma2, names=_NAMES, norm_offset=1.0)
GEMMA3 = Family(architectures=("Gemma3ForCausalLM",), spec=_gemma3, names=_NAMES, norm_offset=1.0)
