"""DistilBERT: BERT without token types, with names of its own for everything."""

from __future__ import annotations

from headrace.core.errors import BadCheckpoint
from headrace.models.config import Config, required
from headrace.models.encoder_family import EncoderFamily, classifier_alone, dense_then_classifier, function
from headrace.models.encoder_parameters import EncoderNames
from headrace.models.encoder_spec import EncoderLayerSpec, EncoderSpec
from headrace.models.functions import Function


def _distilbert(config: Config) -> EncoderSpec:
    hidden, heads = required(config, "dim"), required(config, "n_heads")
    if hidden % heads:
        raise BadCheckpoint(f"config.json: dim {hidden} is not a multiple of n_heads {heads}")
    positions = required(config, "max_position_embeddings")
    return EncoderSpec(
        vocab_size=required(config, "vocab_size"),
        hidden_size=hidden,
        embedding_size=hidden,
        intermediate_size=required(config, "hidden_dim"),
        num_heads=heads,
        head_dim=hidden // heads,
        max_position=positions,
        layers=(EncoderLayerSpec(),) * required(config, "n_layers"),
        norm_eps=1e-12,
        function=function(config, "activation"),
        position_rows=positions,
    )


DISTILBERT = EncoderFamily(
    stems=("DistilBert",),
    spec=_distilbert,
    prefix="distilbert.",
    sequence_head=dense_then_classifier("pre_classifier", "classifier", Function.RELU),
    token_head=classifier_alone,
    names=EncoderNames(
        layer="transformer.layer.{}.",
        qkv=("attention.q_lin", "attention.k_lin", "attention.v_lin"),
        attention_out="attention.out_lin",
        attention_norm="sa_layer_norm",
        up=("ffn.lin1",),
        down="ffn.lin2",
        mlp_norm="output_layer_norm",
    ),
)
