"""Nomic BERT: BERT with rotary embeddings in place of a position table, gated feed-forward layers, no biases in layers.

Its config comes in two spellings, GPT-2's of the first release and BERT's since transformers 5; the names of its
tensors are the same with both.
"""

from __future__ import annotations

from headrace.core.errors import BadCheckpoint
from headrace.models.config import Config, required, rope
from headrace.models.encoder_family import EncoderFamily, classifier_alone, dense_then_classifier, encoder_sizes
from headrace.models.encoder_parameters import EncoderNames
from headrace.models.encoder_spec import EncoderLayerSpec, EncoderSpec
from headrace.models.functions import Function

_SPELLINGS = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_inner": "intermediate_size",
    "n_layer": "num_hidden_layers",
    "layer_norm_epsilon": "layer_norm_eps",
    "rotary_emb_base": "rope_theta",
    "max_trained_positions": "max_position_embeddings",
}
_GATED = {"swiglu": "silu", "geglu": "gelu"}
_MUST_BE = {"prenorm": False, "qkv_proj_bias": False, "mlp_fc1_bias": False, "mlp_fc2_bias": False}
_THETA = 1000.0


def _nomic(given: Config) -> EncoderSpec:
    config = _in_berts_spelling(given) if "n_embd" in given else {"rope_theta": _THETA, "hidden_act": "silu", **given}
    return EncoderSpec(
        **encoder_sizes(config),
        max_position=required(config, "max_position_embeddings"),
        layers=(EncoderLayerSpec(rope(config, "")),) * required(config, "num_hidden_layers"),
        norm_eps=config.get("layer_norm_eps", 1e-12),
        gated=True,
        type_vocab_size=config.get("type_vocab_size", 2),
        qkv_bias=False,
        attention_out_bias=False,
        up_bias=False,
        down_bias=False,
    )


def _in_berts_spelling(given: Config) -> Config:
    for key, value in _MUST_BE.items():
        if given.get(key, value) != value:
            raise BadCheckpoint(f"config.json: {key} {given[key]!r} is not supported; supported: {value!r}")
    activation = given.get("activation_function")
    if activation not in _GATED or given.get("rotary_emb_fraction") != 1.0 or given.get("rotary_emb_interleaved"):
        raise BadCheckpoint(
            "config.json: not a Nomic BERT with a gated feed-forward layer and whole heads rotated, half against half"
        )
    names = {key: _SPELLINGS.get(key, key) for key in given}
    return {names[key]: value for key, value in given.items() if value is not None} | {
        "hidden_act": _GATED[activation],
        "max_position_embeddings": given.get("max_trained_positions") or required(given, "n_positions"),
    }


NOMIC = EncoderFamily(
    stems=("NomicBert",),
    spec=_nomic,
    prefix="nomic_bert.",
    sequence_head=dense_then_classifier("pooler.dense", "classifier", Function.TANH),
    token_head=classifier_alone,
    names=EncoderNames(
        embedding_norm="emb_ln",
        layer="encoder.layers.{}.",
        qkv=("attn.Wqkv",),
        attention_out="attn.out_proj",
        attention_norm="norm1",
        up=("mlp.fc12", "mlp.fc11"),
        down="mlp.fc2",
        mlp_norm="norm2",
    ),
)
