"""MPNet: BERT without token types, with RoBERTa's positions, and a bias by distance on the attention scores."""

from __future__ import annotations

from headrace.models.config import Config, required
from headrace.models.encoder_family import EncoderFamily, classifier_alone, dense_then_classifier, encoder_sizes
from headrace.models.encoder_parameters import EncoderNames
from headrace.models.encoder_spec import EncoderLayerSpec, EncoderSpec, RelativeBias
from headrace.models.functions import Function

_POSITION_OFFSET = 2
"""Whatever the config says of its padding token."""
_MAX_DISTANCE = 128


def _mpnet(config: Config) -> EncoderSpec:
    rows = required(config, "max_position_embeddings")
    return EncoderSpec(
        **encoder_sizes(config),
        max_position=rows - _POSITION_OFFSET,
        layers=(EncoderLayerSpec(),) * required(config, "num_hidden_layers"),
        norm_eps=config.get("layer_norm_eps", 1e-12),
        position_rows=rows,
        position_offset=_POSITION_OFFSET,
        relative_bias=RelativeBias(config.get("relative_attention_num_buckets", 32), _MAX_DISTANCE),
    )


MPNET = EncoderFamily(
    stems=("MPNet",),
    spec=_mpnet,
    prefix="mpnet.",
    sequence_head=dense_then_classifier("classifier.dense", "classifier.out_proj", Function.TANH),
    token_head=classifier_alone,
    names=EncoderNames(
        qkv=("attention.attn.q", "attention.attn.k", "attention.attn.v"),
        attention_out="attention.attn.o",
        attention_norm="attention.LayerNorm",
    ),
)
