"""Gemma 3, text only: norms before and after each sublayer, five layers with a sliding window to one without."""

from __future__ import annotations

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
"""Gemma's configs leave out what equals transformers' `Gemma3TextConfig`."""

_GLOBAL_THETA, _LOCAL_THETA = 1_000_000.0, 10_000.0


def _gemma3(given: Config) -> DecoderSpec:
    config = _DEFAULTS | {key: value for key, value in given.items() if value is not None}
    config["rope_parameters"] = _rope_parameters(config)
    pattern = config.get("sliding_window_pattern") or config.get("_sliding_window_pattern") or 6
    count = required(config, "num_hidden_layers")
    kinds = config.get("layer_types") or [FULL if (n + 1) % pattern == 0 else SLIDING for n in range(count)]
    return DecoderSpec(
        **sizes(config),
        layers=layers(
            config,
            kinds,
            scale=config["query_pre_attn_scalar"] ** -0.5,
            sliding_window=config["sliding_window"],
            soft_cap=config.get("attn_logit_softcapping"),
        ),
        activation=activation(config, "hidden_activation"),
        norm_placement=NormPlacement.BOTH,
        qk_norm=QkNorm.HEAD,
        qkv_bias=bool(config.get("attention_bias", False)),
        attention_out_bias=bool(config.get("attention_bias", False)),
        embedding_scale=config["hidden_size"] ** 0.5,
        logit_soft_cap=config.get("final_logit_softcapping"),
    )


def _rope_parameters(config: Config) -> Config:
    """One set per layer type, from either spelling; only layers without a window are scaled."""
    if config.get("rope_parameters"):
        return config["rope_parameters"]
    return {
        FULL: {**(config.get("rope_scaling") or {}), "rope_theta": config.get("rope_theta", _GLOBAL_THETA)},
        SLIDING: {"rope_type": "default", "rope_theta": config.get("rope_local_base_freq", _LOCAL_THETA)},
    }


GEMMA3 = Family(
    architectures=("Gemma3ForCausalLM",),
    spec=_gemma3,
    names=LayerNames(mlp_input_norm="pre_feedforward_layernorm"),
    norm_offset=1.0,
)
