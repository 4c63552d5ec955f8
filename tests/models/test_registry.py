"""What a config may say, and what is refused."""

from __future__ import annotations

import pytest

from headrace.core.errors import BadCheckpoint
from headrace.models import read_blueprint

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 97,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
}
GEMMA3 = {**LLAMA, "architectures": ["Gemma3ForCausalLM"], "num_hidden_layers": 7, "rope_theta": 5e5}


def spec_of(config):
    return read_blueprint(config).spec


def test_head_sizes_default_to_the_hidden_size():
    spec = spec_of(LLAMA)

    assert (spec.num_kv_heads, spec.head_dim, spec.num_layers, spec.max_position) == (4, 16, 2, 128)
    assert not spec.tied_embeddings


def test_gemma3_classic_config_has_a_local_base_and_a_pattern():
    spec = spec_of({**GEMMA3, "rope_scaling": {"rope_type": "linear", "factor": 8.0}, "sliding_window_pattern": 3})

    windows = [layer.attention.window for layer in spec.layers]
    assert windows == [4096, 4096, None, 4096, 4096, None, 4096]
    assert spec.layers[0].rope.theta == 1e4
    assert spec.layers[0].rope.scaling is None
    assert spec.layers[2].rope.theta == 5e5
    assert spec.layers[2].rope.scaling.factor == 8.0
    assert spec.layers[0].attention.scale == 256**-0.5
    assert spec.tied_embeddings


def test_mistral_reads_a_missing_window_as_transformers_does():
    mistral = {**LLAMA, "architectures": ["MistralForCausalLM"]}

    assert spec_of(mistral).layers[0].attention.window == 4096
    assert spec_of({**mistral, "sliding_window": None}).layers[0].attention.window is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architectures": ["MambaForCausalLM"]}, "MambaForCausalLM; supported: Gemma2ForCausalLM, .*Qwen3ForCausalLM"),
        ({"architectures": None}, "none given"),
        ({"vocab_size": None}, "'vocab_size' is missing"),
        ({"hidden_act": "relu"}, "hidden_act 'relu' is not supported"),
        ({"num_key_value_heads": 3}, "num_attention_heads 4 is not a multiple of num_key_value_heads 3"),
        ({"quantization_config": {"quant_method": "awq"}}, "quantised with 'awq'"),
    ],
)
def test_refused(change, message):
    with pytest.raises(BadCheckpoint, match=message):
        spec_of({**LLAMA, **change})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layer_types": ["full_attention"]}, "layer_types has 1 entries for 7 layers"),
        ({"layer_types": ["mamba"] * 7}, "layer type 'mamba' is not supported"),
        ({"use_bidirectional_attention": True}, "use_bidirectional_attention"),
    ],
)
def test_refused_layers(change, message):
    with pytest.raises(BadCheckpoint, match=message):
        spec_of({**GEMMA3, **change})
