"""BERT and those that differ from it in little: RoBERTa, XLM-RoBERTa and CamemBERT, whose positions begin after that of
the padding token, and ELECTRA, whose embeddings can be narrower than its layers.
"""

from __future__ import annotations

from dataclasses import replace

from headrace.core.errors import BadCheckpoint
from headrace.models.config import Config, required
from headrace.models.encoder_family import EncoderFamily, classifier_alone, dense_then_classifier, encoder_sizes
from headrace.models.encoder_spec import EncoderLayerSpec, EncoderSpec
from headrace.models.functions import Function


def _bert(config: Config) -> EncoderSpec:
    return _absolute(config, position_offset=0)


def _roberta(config: Config) -> EncoderSpec:
    padding = config.get("pad_token_id")
    return _absolute(config, position_offset=1 + (1 if padding is None else padding))


def _electra(config: Config) -> EncoderSpec:
    spec = _bert(config)
    return replace(spec, embedding_size=config.get("embedding_size") or spec.hidden_size)


def _absolute(config: Config, *, position_offset: int) -> EncoderSpec:
    kind = config.get("position_embedding_type") or "absolute"
    if kind != "absolute":
        raise BadCheckpoint(f"config.json: position_embedding_type {kind!r} is not supported; supported: absolute")
    if config.get("is_decoder"):
        raise BadCheckpoint("config.json: is_decoder is set: not a model that reads its input in both directions")
    rows = required(config, "max_position_embeddings")
    return EncoderSpec(
        **encoder_sizes(config),
        max_position=rows - position_offset,
        layers=(EncoderLayerSpec(),) * required(config, "num_hidden_layers"),
        norm_eps=config.get("layer_norm_eps", 1e-12),
        type_vocab_size=config.get("type_vocab_size", 2),
        position_rows=rows,
        position_offset=position_offset,
    )


BERT = EncoderFamily(
    stems=("Bert",),
    spec=_bert,
    prefix="bert.",
    sequence_head=dense_then_classifier("pooler.dense", "classifier", Function.TANH),
    token_head=classifier_alone,
)
ROBERTA = EncoderFamily(
    stems=("Roberta", "XLMRoberta", "Camembert"),
    spec=_roberta,
    prefix="roberta.",
    sequence_head=dense_then_classifier("classifier.dense", "classifier.out_proj", Function.TANH),
    token_head=classifier_alone,
)
ELECTRA = EncoderFamily(
    stems=("Electra",),
    spec=_electra,
    prefix="electra.",
    sequence_head=dense_then_classifier("classifier.dense", "classifier.out_proj", Function.GELU),
    token_head=classifier_alone,
)
