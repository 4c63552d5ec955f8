"""What the config of an encoder may say, what it is read as, and what is refused."""

from __future__ import annotations

import pytest
import torch

from headrace.core.errors import BadCheckpoint
from headrace.core.pooling import PoolingMode
from headrace.models import read_pooling_blueprint
from headrace.models.encoder_spec import RelativeBias
from headrace.models.functions import Function
from headrace.models.relative_bias import bias_by_distance

BERT = {
    "architectures": ["BertModel"],
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
}
MODERNBERT = {**BERT, "architectures": ["ModernBertModel"], "num_hidden_layers": 4}
NOMIC = {
    "architectures": ["NomicBertModel"],
    "activation_function": "swiglu",
    "layer_norm_epsilon": 1e-12,
    "mlp_fc1_bias": False,
    "mlp_fc2_bias": False,
    "n_embd": 64,
    "n_head": 4,
    "n_inner": 96,
    "n_layer": 2,
    "n_positions": 8192,
    "max_trained_positions": 2048,
    "prenorm": False,
    "qkv_proj_bias": False,
    "rotary_emb_base": 1000,
    "rotary_emb_fraction": 1.0,
    "rotary_emb_interleaved": False,
    "rotary_scaling_factor": None,
    "type_vocab_size": 2,
    "vocab_size": 97,
}


def blueprint_of(config, classifies=False):
    return read_pooling_blueprint(config, classifies=classifies)


def spec_of(config):
    return blueprint_of(config).backbone.spec


def test_robertas_positions_begin_after_the_padding_token():
    roberta = {**BERT, "architectures": ["RobertaModel"], "max_position_embeddings": 130, "pad_token_id": 1}

    spec = spec_of(roberta)

    assert (spec.position_rows, spec.position_offset, spec.max_position) == (130, 2, 128)


def test_modernbert_before_transformers_5():
    config = {**MODERNBERT, "global_attn_every_n_layers": 3, "global_rope_theta": 5e5, "local_attention": 64}

    layers = spec_of(config).layers

    assert [layer.window for layer in layers] == [None, 32, 32, None]
    assert [layer.rope.theta for layer in layers] == [5e5, 1e4, 1e4, 5e5]
    assert [layer.attention_norm for layer in layers] == [False, True, True, True]


def test_nomic_as_it_was_first_published():
    spec = spec_of(NOMIC)

    assert (spec.hidden_size, spec.num_layers, spec.max_position) == (64, 2, 2048)
    assert (spec.function, spec.gated, spec.layers[0].rope.theta) == (Function.SILU, True, 1000.0)


def test_heads():
    classifier = {**BERT, "architectures": ["BertForSequenceClassification"], "id2label": {"0": "no", "1": "yes"}}

    assert blueprint_of(BERT).head.layers == ()
    assert blueprint_of(classifier).head.layers == ()
    head = blueprint_of(classifier, classifies=True).head
    assert head.mode is PoolingMode.CLS
    assert [layer.module for layer in head.layers] == ["pooler.dense", "classifier"]
    assert head.layers[-1].out_features == 2


def test_names_of_old_checkpoints():
    blueprint = blueprint_of(BERT)

    assert blueprint.name_of("bert.embeddings.LayerNorm.gamma") == "embeddings.LayerNorm.weight"
    assert blueprint.name_of("embeddings.LayerNorm.beta") == "embeddings.LayerNorm.bias"
    assert blueprint.is_spare("cls.predictions.bias")
    assert blueprint.is_spare("embeddings.position_ids")
    assert not blueprint.is_spare("encoder.layer.9.output.dense.weight")


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({**BERT, "architectures": ["MambaModel"]}, "MambaModel; models that pool can be of these: Bert, Camembert,"),
        ({**BERT, "architectures": ["Qwen2ForRewardModel"]}, "not supported: Qwen2ForRewardModel"),
        ({**BERT, "architectures": None}, "none given"),
        ({**BERT, "position_embedding_type": "relative_key"}, "position_embedding_type 'relative_key'"),
        ({**BERT, "is_decoder": True}, "is_decoder is set"),
        ({**BERT, "hidden_act": "mish"}, "hidden_act 'mish' is not supported; supported: gelu"),
        ({**BERT, "num_attention_heads": 5}, "hidden_size 64 is not a multiple of num_attention_heads 5"),
        ({**BERT, "vocab_size": None}, "'vocab_size' is missing"),
        ({**MODERNBERT, "layer_types": ["full_attention"]}, "1 entries for 4 layers"),
        ({**MODERNBERT, "layer_types": ["mamba"] * 4}, r"\['mamba'\] are not supported"),
        ({**NOMIC, "prenorm": True}, "prenorm True is not supported"),
        ({**NOMIC, "activation_function": "gelu"}, "not a Nomic BERT with a gated"),
        ({**BERT, "architectures": ["LlamaModel"], "rms_norm_eps": 1e-5, "is_causal": False}, "is_causal is false"),
    ],
)
def test_refused(config, message):
    with pytest.raises(BadCheckpoint, match=message):
        blueprint_of(config)


def test_classifier_poolings_that_are_not_supported():
    config = {**MODERNBERT, "architectures": ["ModernBertForSequenceClassification"], "classifier_pooling": "max"}

    with pytest.raises(BadCheckpoint, match="classifier_pooling 'max' is not supported"):
        blueprint_of(config, classifies=True)


def test_bias_by_distance_is_what_mpnet_looks_up():
    from transformers.models.mpnet.modeling_mpnet import MPNetEncoder

    table = torch.randn(32, 4, generator=torch.Generator().manual_seed(0))
    longest = 300
    positions = torch.arange(longest)

    bias = bias_by_distance(table, RelativeBias(32, 128), longest)

    distances = positions - positions[:, None]
    buckets = MPNetEncoder.relative_position_bucket(distances)
    assert torch.equal(bias[:, distances + longest - 1], table[buckets].permute(2, 0, 1))
