"""ModernBERT: rotary embeddings, norms on the input of each sublayer, a gated feed-forward layer, and attention that
sees everything in one layer of three and what is near in the others.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.core.errors import BadCheckpoint
from headrace.core.pooling import PoolingMode
from headrace.models.config import FULL, SLIDING, Config, required, rope
from headrace.models.encoder_family import EncoderFamily, encoder_sizes, function, labels
from headrace.models.encoder_parameters import EncoderNames
from headrace.models.encoder_spec import EncoderLayerSpec, EncoderSpec, Residual
from headrace.models.head import DenseLayer, HeadSpec, NormLayer

_POOLING = {"cls": PoolingMode.CLS, "mean": PoolingMode.MEAN}


def _modernbert(config: Config) -> EncoderSpec:
    count = required(config, "num_hidden_layers")
    period = config.get("global_attn_every_n_layers", 3)
    kinds = config.get("layer_types") or [SLIDING if layer % period else FULL for layer in range(count)]
    if len(kinds) != count:
        raise BadCheckpoint(f"config.json: layer_types has {len(kinds)} entries for {count} layers")
    by_kind = {
        FULL: EncoderLayerSpec(rope(_with_theta(config, FULL), FULL)),
        SLIDING: EncoderLayerSpec(rope(_with_theta(config, SLIDING), SLIDING), config.get("local_attention", 128) // 2),
    }
    if unknown := set(kinds).difference(by_kind):
        raise BadCheckpoint(f"config.json: layer types {sorted(unknown)} are not supported; supported: {list(by_kind)}")
    layers = [by_kind[kind] for kind in kinds]
    layers[0] = replace(layers[0], attention_norm=False)  # the embeddings have just been normalised
    mlp_bias, attention_bias = bool(config.get("mlp_bias", False)), bool(config.get("attention_bias", False))
    return EncoderSpec(
        **encoder_sizes({**config, "hidden_act": config.get("hidden_activation")}),
        max_position=required(config, "max_position_embeddings"),
        layers=tuple(layers),
        norm_eps=config.get("norm_eps", 1e-5),
        residual=Residual.NORM_OF_INPUT,
        gated=True,
        norm_bias=bool(config.get("norm_bias", False)),
        qkv_bias=attention_bias,
        attention_out_bias=attention_bias,
        up_bias=mlp_bias,
        down_bias=mlp_bias,
    )


def _with_theta(config: Config, kind: str) -> Config:
    """Before transformers 5 the base of the rotation had a key for each kind of layer."""
    if config.get("rope_parameters"):
        return config
    key, default = ("global_rope_theta", 160_000.0) if kind == FULL else ("local_rope_theta", 10_000.0)
    return {**config, "rope_theta": config.get(key) or default}


def _sequence_head(config: Config, spec: EncoderSpec) -> HeadSpec:
    pooling = config.get("classifier_pooling", "cls")
    if pooling not in _POOLING:
        raise BadCheckpoint(f"config.json: classifier_pooling {pooling!r} is not supported; supported: cls, mean")
    hidden = spec.hidden_size
    dense = DenseLayer(
        module="head.dense",
        in_features=hidden,
        out_features=hidden,
        bias=bool(config.get("classifier_bias", False)),
        function=function(config, "classifier_activation"),
    )
    norm = NormLayer(module="head.norm", size=hidden, eps=spec.norm_eps, bias=spec.norm_bias)
    scores = DenseLayer(module="classifier", in_features=hidden, out_features=len(labels(config)))
    return HeadSpec(_POOLING[pooling], (dense, norm, scores))


MODERNBERT = EncoderFamily(
    stems=("ModernBert",),
    spec=_modernbert,
    prefix="model.",
    sequence_head=_sequence_head,
    token_head=_sequence_head,
    names=EncoderNames(
        token_embedding="embeddings.tok_embeddings",
        embedding_norm="embeddings.norm",
        layer="layers.{}.",
        qkv=("attn.Wqkv",),
        attention_out="attn.Wo",
        attention_norm="attn_norm",
        up=("mlp.Wi",),
        down="mlp.Wo",
        mlp_norm="mlp_norm",
    ),
)
