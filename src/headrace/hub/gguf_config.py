"""Translates GGUF metadata into the keys of a Hugging Face `config.json`, so that models are built from one vocabulary.

Two things have no Hugging Face spelling of their own:

- Llama 3's frequency scaling is stored as finished divisors in a tensor. It becomes
  `rope_scaling = {"rope_type": "gguf_freqs", "factors": [...]}`: inverse frequency `i` is divided by `factors[i]`.
- Mistral models are of architecture `llama` in GGUF, and stay so: they differ in nothing that a file can say.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headrace.core.errors import BadCheckpoint
from headrace.hub.gguf import GgufHeader


class _Metadata:
    """The metadata of one file, asked for by the part of the key behind the architecture."""

    def __init__(self, path: Path, header: GgufHeader) -> None:
        self.path = path
        self.values = header.metadata
        self.tensors = header.tensors
        self.architecture: str = self.values.get("general.architecture", "")

    def get(self, suffix: str) -> Any:
        return self.values.get(f"{self.architecture}.{suffix}")

    def integer(self, suffix: str, default: int | None = None) -> int:
        """A positive integer, given once, or once a layer if all are equal. Without a `default` it must be there."""
        value = self.get(suffix)
        if value is None and default is not None:
            return default
        if isinstance(value, np.ndarray) and len(set(value.tolist())) == 1:
            value = int(value[0])
        if not isinstance(value, int) or value < 1:
            found = "missing" if value is None else f"{value!r}"
            raise BadCheckpoint(
                f"{self.path}: metadata key {self.architecture}.{suffix} must be a positive integer, it is {found}"
            )
        return value

    def decimal(self, suffix: str) -> float | None:
        """A number as its author wrote it: 1e-05 is stored as the float32 nearest to it, 9.999999747378752e-06."""
        value = self.get(suffix)
        if value is None:
            return None
        if not isinstance(value, int | float):
            raise BadCheckpoint(f"{self.path}: metadata key {self.architecture}.{suffix} must be a number")
        return float(str(np.float32(value)))

    def floats(self, tensor_name: str) -> list[float]:
        """The elements of a small one-dimensional F32 tensor."""
        tensor = self.tensors[tensor_name]
        if tensor.type != "F32":
            raise BadCheckpoint(f"{self.path}: tensor {tensor_name!r} is of type {tensor.type}, F32 is expected")
        return np.fromfile(self.path, "<f4", math.prod(tensor.shape), offset=tensor.offset).tolist()


def config_from_gguf(path: Path, header: GgufHeader) -> dict[str, Any]:
    """The `config.json` of the GGUF file at `path`, whose header is `header`.

    Keys whose default is right are left out. Raises `BadCheckpoint` if a key is missing or the architecture is not
    one of `FAMILIES`.
    """
    metadata = _Metadata(path, header)
    family = FAMILIES.get(metadata.architecture)
    if family is None:
        raise BadCheckpoint(
            f"{path}: architecture {metadata.architecture!r} is not supported; supported: {', '.join(FAMILIES)}"
        )
    if metadata.get("expert_count"):
        raise BadCheckpoint(f"{path}: mixture-of-experts models are not supported")
    config: dict[str, Any] = {"architectures": [family.architecture], "model_type": family.model_type}
    config |= _sizes(metadata)
    config |= _rope(metadata, config["head_dim"])
    config |= _token_ids(metadata)
    config |= family.particulars(metadata, config)
    return config


def eos_token_ids(header: GgufHeader) -> list[int]:
    """The tokens that end an answer: end of sequence, of turn and of message, as far as the file names them."""
    keys = ("tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id")
    return list(dict.fromkeys(header.metadata[key] for key in keys if key in header.metadata))


def _sizes(metadata: _Metadata) -> dict[str, Any]:
    hidden_size = metadata.integer("embedding_length")
    num_heads = metadata.integer("attention.head_count")
    head_dim = metadata.integer("attention.key_length", hidden_size // num_heads)
    if metadata.integer("attention.value_length", head_dim) != head_dim:
        raise BadCheckpoint(f"{metadata.path}: keys and values of different length are not supported")
    embedding = metadata.tensors.get("token_embd.weight")
    if embedding is None:
        raise BadCheckpoint(f"{metadata.path}: tensor 'token_embd.weight' is missing")
    attention_biases = ("blk.0.attn_q.bias", "blk.0.attn_qkv.bias")
    return {
        "vocab_size": embedding.shape[0],
        "hidden_size": hidden_size,
        "intermediate_size": metadata.integer("feed_forward_length"),
        "num_hidden_layers": metadata.integer("block_count"),
        "num_attention_heads": num_heads,
        "num_key_value_heads": metadata.integer("attention.head_count_kv", num_heads),
        "head_dim": head_dim,
        "rms_norm_eps": metadata.decimal("attention.layer_norm_rms_epsilon") or 1e-6,
        "max_position_embeddings": metadata.integer("context_length"),
        "tie_word_embeddings": "output.weight" not in metadata.tensors,
        "attention_bias": any(name in metadata.tensors for name in attention_biases),
        "mlp_bias": "blk.0.ffn_down.bias" in metadata.tensors,
    }


def _rope(metadata: _Metadata, head_dim: int) -> dict[str, Any]:
    rope: dict[str, Any] = {
        "rope_theta": metadata.decimal("rope.freq_base") or 10000.0,
        "rope_scaling": _rope_scaling(metadata),
    }
    rotated = metadata.integer("rope.dimension_count", head_dim)
    if rotated != head_dim:
        rope["partial_rotary_factor"] = rotated / head_dim
    return rope


def _rope_scaling(metadata: _Metadata) -> dict[str, Any] | None:
    if "rope_freqs.weight" in metadata.tensors:
        return {"rope_type": "gguf_freqs", "factors": metadata.floats("rope_freqs.weight")}
    if "rope_factors_long.weight" in metadata.tensors:
        return _longrope(metadata)
    kind = metadata.get("rope.scaling.type") or "none"
    factor = metadata.decimal("rope.scaling.factor")
    if kind == "none":
        factor = metadata.decimal("rope.scale_linear")  # how linear scaling was written before 2023-10
        return {"rope_type": "linear", "factor": factor} if factor not in (None, 1.0) else None
    if kind == "linear":
        return {"rope_type": "linear", "factor": factor or 1.0}
    if kind == "yarn":
        return _yarn(metadata, factor or 1.0)
    raise BadCheckpoint(f"{metadata.path}: rotary scaling of type {kind!r} is not supported")


def _yarn(metadata: _Metadata, factor: float) -> dict[str, Any]:
    scaling: dict[str, Any] = {
        "rope_type": "yarn",
        "factor": factor,
        "original_max_position_embeddings": metadata.integer("rope.scaling.original_context_length"),
        "beta_fast": metadata.decimal("rope.scaling.yarn_beta_fast") or 32.0,
        "beta_slow": metadata.decimal("rope.scaling.yarn_beta_slow") or 1.0,
    }
    multiplier = metadata.decimal("rope.scaling.attn_factor") or 1.0
    if multiplier != 1.0:  # GGUF scales YaRN's own factor by it, Hugging Face replaces the factor
        scaling["attention_factor"] = multiplier * (0.1 * math.log(factor) + 1.0)
    return scaling


def _longrope(metadata: _Metadata) -> dict[str, Any]:
    scaling: dict[str, Any] = {
        "rope_type": "longrope",
        "long_factor": metadata.floats("rope_factors_long.weight"),
        "short_factor": metadata.floats("rope_factors_short.weight"),
        "original_max_position_embeddings": metadata.integer("rope.scaling.original_context_length"),
    }
    attention_factor = metadata.decimal("rope.scaling.attn_factor")
    if attention_factor is not None:
        scaling["attention_factor"] = attention_factor
    return scaling


def _token_ids(metadata: _Metadata) -> dict[str, Any]:
    names = {"bos_token_id": "bos", "eos_token_id": "eos", "pad_token_id": "padding"}
    return {key: metadata.values.get(f"tokenizer.ggml.{name}_token_id") for key, name in names.items()}


def _plain(metadata: _Metadata, config: dict[str, Any]) -> dict[str, Any]:
    return {"hidden_act": "silu"}


def _gemma3(metadata: _Metadata, config: dict[str, Any]) -> dict[str, Any]:
    num_layers, head_dim = config["num_hidden_layers"], config["head_dim"]
    # The file does not say by what queries are scaled. It is the head dimension, save for the 27B (62 layers).
    scalar = config["hidden_size"] // config["num_attention_heads"] if num_layers == 62 else head_dim
    return {
        "hidden_activation": "gelu_pytorch_tanh",
        "sliding_window": metadata.integer("attention.sliding_window"),
        "layer_types": _layer_types(metadata, num_layers),
        "rope_local_base_freq": metadata.decimal("rope.freq_base_swa") or 10000.0,
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": metadata.decimal("attn_logit_softcapping"),
        "final_logit_softcapping": metadata.decimal("final_logit_softcapping"),
    }


def _layer_types(metadata: _Metadata, num_layers: int) -> list[str]:
    key = "attention.sliding_window_pattern"
    by_layer = metadata.get(key)
    if isinstance(by_layer, np.ndarray) and len(by_layer) == num_layers:
        slides = [bool(value) for value in by_layer]
    else:
        period = metadata.integer(key, 6)  # its last layer is the one that sees everything
        slides = [(layer + 1) % period != 0 for layer in range(num_layers)]
    return ["sliding_attention" if slide else "full_attention" for slide in slides]


def _phi3(metadata: _Metadata, config: dict[str, Any]) -> dict[str, Any]:
    scaling = config["rope_scaling"]
    return {
        "hidden_act": "silu",
        "sliding_window": metadata.get("attention.sliding_window") or None,  # 0 in files of the 128k models
        "original_max_position_embeddings": scaling["original_max_position_embeddings"]
        if scaling
        else config["max_position_embeddings"],
    }


@dataclass(frozen=True, slots=True)
class _Family:
    architecture: str
    model_type: str
    particulars: Callable[[_Metadata, dict[str, Any]], dict[str, Any]] = _plain


FAMILIES: dict[str, _Family] = {
    "llama": _Family("LlamaForCausalLM", "llama"),
    "qwen2": _Family("Qwen2ForCausalLM", "qwen2"),
    "qwen3": _Family("Qwen3ForCausalLM", "qwen3"),
    "gemma3": _Family("Gemma3ForCausalLM", "gemma3_text", _gemma3),
    "phi3": _Family("Phi3ForCausalLM", "phi3", _phi3),
    "olmo2": _Family("Olmo2ForCausalLM", "olmo2"),
}
"""By `general.architecture`."""
