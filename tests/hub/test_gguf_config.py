from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from transformers import AutoConfig

from headrace.core.errors import BadCheckpoint
from headrace.hub import read_gguf_header
from headrace.hub.gguf_config import config_from_gguf, eos_token_ids

WriteGguf = Callable[..., Path]

COMMON_KEYS = (
    "model_type",
    "vocab_size",
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "max_position_embeddings",
    "tie_word_embeddings",
    "attention_bias",
    "bos_token_id",
    "eos_token_id",
    "pad_token_id",
)


def small_metadata(architecture: str, **more: Any) -> dict[str, Any]:
    own = {
        "block_count": 8,
        "context_length": 4096,
        "embedding_length": 64,
        "feed_forward_length": 96,
        "attention.head_count": 8,
        "attention.head_count_kv": 2,
        "attention.layer_norm_rms_epsilon": 1e-5,
        "rope.freq_base": 500000.0,
    }
    own |= {key.replace("__", "."): value for key, value in more.items()}
    return {"general.architecture": architecture} | {
        f"{architecture}.{key}": value for key, value in own.items() if value is not None
    }


def config_of(write_gguf: WriteGguf, metadata: dict[str, Any], **tensors: list[float]) -> dict[str, Any]:
    named = {f"{name.replace('__', '.')}": np.array(values) for name, values in tensors.items()}
    path = write_gguf(metadata, {"token_embd.weight": np.zeros((100, 64)), **named})
    return config_from_gguf(path, read_gguf_header(path))


def abridged(path: Path, write_gguf: WriteGguf, rows: int = 500) -> Path:
    """A copy of a model's metadata with the first tokens only: transformers needs 20 s for all of Gemma's."""
    header = read_gguf_header(path)
    metadata = {
        key: value[:rows] if isinstance(value, list | np.ndarray) else value for key, value in header.metadata.items()
    }
    architecture = metadata["general.architecture"]
    if f"{architecture}.vocab_size" in metadata:
        metadata[f"{architecture}.vocab_size"] = rows
    return write_gguf(metadata, {"token_embd.weight": np.zeros((rows, header.tensors["token_embd.weight"].shape[1]))})


@pytest.mark.parametrize("model", ["smollm2_path", "gemma3_path"])
def test_equals_what_transformers_derives(model: str, request: pytest.FixtureRequest, write_gguf: WriteGguf) -> None:
    path = abridged(request.getfixturevalue(model), write_gguf)
    ours = config_from_gguf(path, read_gguf_header(path))
    theirs = AutoConfig.from_pretrained(path.parent, gguf_file=path.name)
    for key in COMMON_KEYS:
        assert ours[key] == getattr(theirs, key), key
    assert ours["rms_norm_eps"] == pytest.approx(theirs.rms_norm_eps, rel=1e-6)
    assert ours["rope_scaling"] is None
    if theirs.model_type == "gemma3_text":
        for key in ("sliding_window", "layer_types", "query_pre_attn_scalar", "hidden_activation"):
            assert ours[key] == getattr(theirs, key), key
        assert ours["rope_local_base_freq"] == theirs.rope_parameters["sliding_attention"]["rope_theta"]
        assert ours["rope_theta"] == theirs.rope_parameters["full_attention"]["rope_theta"]
    else:
        assert ours["hidden_act"] == theirs.hidden_act
        assert ours["rope_theta"] == theirs.rope_parameters["rope_theta"]


def test_whole_files(smollm2_path: Path, gemma3_path: Path) -> None:
    smollm2 = config_from_gguf(smollm2_path, read_gguf_header(smollm2_path))
    assert (smollm2["architectures"], smollm2["vocab_size"]) == (["LlamaForCausalLM"], 49_152)
    assert smollm2["rms_norm_eps"] == 1e-5  # not 9.999999747378752e-06
    gemma3 = config_from_gguf(gemma3_path, read_gguf_header(gemma3_path))
    assert (gemma3["architectures"], gemma3["vocab_size"]) == (["Gemma3ForCausalLM"], 262_144)
    assert gemma3["layer_types"].count("full_attention") == 3
    assert gemma3["layer_types"][5::6] == ["full_attention"] * 3


@pytest.mark.parametrize(
    ("architecture", "class_name"),
    [
        ("llama", "LlamaForCausalLM"),
        ("qwen2", "Qwen2ForCausalLM"),
        ("qwen3", "Qwen3ForCausalLM"),
        ("phi3", "Phi3ForCausalLM"),
        ("olmo2", "Olmo2ForCausalLM"),
    ],
)
def test_families(write_gguf: WriteGguf, architecture: str, class_name: str) -> None:
    config = config_of(write_gguf, small_metadata(architecture))
    assert config["architectures"] == [class_name]
    assert config["head_dim"] == 8
    assert config["hidden_act"] == "silu"
    assert config["rope_theta"] == 500000.0
    assert config["bos_token_id"] is None
    AutoConfig.for_model(**config)  # every key has a place there


def test_separate_output_and_biases(write_gguf: WriteGguf) -> None:
    config = config_of(write_gguf, small_metadata("qwen2"), output__weight=[0.0], blk__0__attn_q__bias=[0.0])
    assert config["tie_word_embeddings"] is False
    assert config["attention_bias"] is True
    assert config["mlp_bias"] is False


def test_defaults_and_values_given_once_a_layer(write_gguf: WriteGguf) -> None:
    metadata = small_metadata(
        "llama",
        attention__head_count_kv=None,
        rope__freq_base=None,
        feed_forward_length=[96] * 8,
        attention__key_length=16,
        rope__dimension_count=4,
    )
    config = config_of(write_gguf, metadata)
    assert config["num_key_value_heads"] == 8
    assert config["rope_theta"] == 10000.0
    assert config["intermediate_size"] == 96
    assert config["head_dim"] == 16
    assert config["partial_rotary_factor"] == 0.25


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"rope__scaling__type": "none", "rope__scaling__factor": 2.0}, None),
        ({"rope__scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        (
            {"rope__scaling__type": "linear", "rope__scaling__factor": 8.0},
            {"rope_type": "linear", "factor": 8.0},
        ),
        (
            {
                "rope__scaling__type": "yarn",
                "rope__scaling__factor": 4.0,
                "rope__scaling__original_context_length": 1024,
            },
            {
                "rope_type": "yarn",
                "factor": 4.0,
                "original_max_position_embeddings": 1024,
                "beta_fast": 32.0,
                "beta_slow": 1.0,
            },
        ),
    ],
)
def test_rope_scaling(write_gguf: WriteGguf, keys: dict[str, Any], expected: dict[str, Any] | None) -> None:
    assert config_of(write_gguf, small_metadata("llama", **keys))["rope_scaling"] == expected


def test_frequency_factors_are_taken_from_the_tensor(write_gguf: WriteGguf) -> None:
    config = config_of(write_gguf, small_metadata("llama"), rope_freqs__weight=[1.0, 1.0, 2.5, 8.0])
    assert config["rope_scaling"] == {"rope_type": "gguf_freqs", "factors": [1.0, 1.0, 2.5, 8.0]}


def test_longrope(write_gguf: WriteGguf) -> None:
    metadata = small_metadata(
        "phi3", rope__scaling__original_context_length=1024, rope__scaling__attn_factor=1.25, context_length=8192
    )
    factors = {"rope_factors_long__weight": [1.0, 2.0, 4.0, 8.0], "rope_factors_short__weight": [1.0, 1.0, 1.0, 2.0]}
    config = config_of(write_gguf, metadata, **factors)
    assert config["original_max_position_embeddings"] == 1024
    assert config["rope_scaling"] == {
        "rope_type": "longrope",
        "long_factor": [1.0, 2.0, 4.0, 8.0],
        "short_factor": [1.0, 1.0, 1.0, 2.0],
        "original_max_position_embeddings": 1024,
        "attention_factor": 1.25,
    }


def test_gemma3_layer_pattern_by_layer(write_gguf: WriteGguf) -> None:
    metadata = small_metadata(
        "gemma3",
        attention__sliding_window=128,
        attention__sliding_window_pattern=[True, False] * 4,
        rope__freq_base_swa=20000.0,
    )
    config = config_of(write_gguf, metadata)
    assert config["layer_types"] == ["sliding_attention", "full_attention"] * 4
    assert config["rope_local_base_freq"] == 20000.0
    assert "hidden_act" not in config


def test_all_tokens_that_end_an_answer(write_gguf: WriteGguf) -> None:
    metadata = small_metadata("llama") | {
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.eot_token_id": 7,
        "tokenizer.ggml.eom_token_id": 2,
    }
    assert eos_token_ids(read_gguf_header(write_gguf(metadata))) == [2, 7]


@pytest.mark.parametrize(
    ("metadata", "complaint"),
    [
        (small_metadata("mamba"), "architecture 'mamba' is not supported; supported: llama"),
        (small_metadata("llama", expert_count=8), "mixture-of-experts"),
        (small_metadata("llama", block_count=None), "llama.block_count must be a positive integer, it is missing"),
        (small_metadata("llama", embedding_length="64"), "embedding_length must be a positive integer, it is '64'"),
        (small_metadata("llama", attention__head_count=0), "head_count must be a positive integer, it is 0"),
        (small_metadata("llama", feed_forward_length=[96, 64]), "feed_forward_length must be a positive integer"),
        (small_metadata("llama", attention__layer_norm_rms_epsilon="tiny"), "epsilon must be a number"),
        (small_metadata("llama", attention__value_length=4), "different length"),
        (small_metadata("llama", rope__scaling__type="spiral"), "scaling of type 'spiral'"),
    ],
)
def test_what_is_missing_or_unsupported_is_named(
    write_gguf: WriteGguf, metadata: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(BadCheckpoint, match=complaint) as raised:
        config_of(write_gguf, metadata)
    assert "model.gguf" in str(raised.value)


def test_no_embedding(write_gguf: WriteGguf) -> None:
    path = write_gguf(small_metadata("llama"))
    with pytest.raises(BadCheckpoint, match=r"'token_embd\.weight' is missing"):
        config_from_gguf(path, read_gguf_header(path))
