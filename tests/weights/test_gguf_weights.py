"""GGUF files as llama.cpp's converter writes them, against the tensors they were made from."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from headrace.core.errors import BadCheckpoint
from headrace.hub import Checkpoint, WeightFormat, read_gguf_header
from headrace.kernels import select_ops
from headrace.models import TorchDecoder, read_blueprint
from headrace.weights import load_weights
from headrace.weights.gguf import GgufSource

CPU = torch.device("cpu")
HEADS, KV_HEADS, HEAD_DIM, LAYERS = 4, 2, 8, 2
CONFIG = {
    "vocab_size": 50,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": KV_HEADS,
    "head_dim": HEAD_DIM,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "attention_bias": False,
}
ARCHITECTURES = {
    "llama": "LlamaForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
    "qwen3": "Qwen3ForCausalLM",
    "gemma3": "Gemma3ForCausalLM",
    "phi3": "Phi3ForCausalLM",
    "olmo2": "Olmo2ForCausalLM",
}


def permute(weight, heads):
    """`LlamaModel.permute` of llama.cpp's converter: halves of a head become neighbours."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:]).swapaxes(1, 2).reshape(weight.shape)
    )


def convert(name, tensor, architecture):
    """What the converter does to a tensor's values."""
    if architecture == "llama" and ".q_proj." in name:
        return permute(tensor, HEADS)
    if architecture == "llama" and ".k_proj." in name:
        return permute(tensor, KV_HEADS)
    if architecture == "gemma3" and "norm" in name:
        return tensor + 1
    return tensor


def write_gguf(path, tensors, architecture, quantization=gguf.GGMLQuantizationType.F32):
    kind = {name: arch for arch, name in gguf.MODEL_ARCH_NAMES.items()}[architecture]
    names = gguf.get_tensor_name_map(kind, LAYERS)
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    for name, tensor in tensors.items():
        data = np.ascontiguousarray(convert(name, tensor.numpy(), architecture))
        kind = quantization if data.ndim == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(
            names.get_name(name, try_suffixes=(".weight", ".bias")), gguf.quants.quantize(data, kind), raw_dtype=kind
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def model_for(architecture, **config):
    config = {**CONFIG, "architectures": [ARCHITECTURES[architecture]], **config}
    return TorchDecoder(read_blueprint(config), select_ops(CPU), dtype=torch.float32, device=CPU)


def random_tensors(model):
    generator = torch.Generator().manual_seed(0)
    return {
        part.name: torch.randn(part.shape, generator=generator) * 0.3
        for parameter in model.blueprint.parameters
        for part in parameter.parts
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_values_and_names_of_every_family(tmp_path, architecture):
    tensors = random_tensors(model_for(architecture))
    path = write_gguf(tmp_path / "model.gguf", tensors, architecture)

    source = GgufSource(path, read_gguf_header(path))

    assert source.shapes == {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        out = torch.empty(source.shapes[name])
        source.read(name, out)
        offset = 1 if architecture == "gemma3" and "norm" in name else 0
        assert torch.equal(out, tensor + offset), name


def test_llama_biases_are_reordered_too(tmp_path):
    tensors = random_tensors(model_for("llama", attention_bias=True))
    path = write_gguf(tmp_path / "model.gguf", tensors, "llama")
    source = GgufSource(path, read_gguf_header(path))

    for name in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.1.self_attn.{name}.bias"
        out = torch.empty(source.shapes[name])
        source.read(name, out)
        assert torch.equal(out, tensors[name])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_quantised_rows_are_reordered_before_they_are_decoded(tmp_path, dtype, monkeypatch):
    monkeypatch.setattr("headrace.weights.gguf._STAGED_ELEMENTS", 100)
    tensors = random_tensors(model_for("llama"))
    path = write_gguf(tmp_path / "model.gguf", tensors, "llama", gguf.GGMLQuantizationType.Q5_1)
    source = GgufSource(path, read_gguf_header(path))

    for name in ("q_proj", "k_proj", "v_proj"):
        name = f"model.layers.1.self_attn.{name}.weight"
        kind = gguf.GGMLQuantizationType.Q5_1
        expected = gguf.quants.dequantize(gguf.quants.quantize(tensors[name].numpy(), kind), kind)
        out = torch.empty(source.shapes[name], dtype=dtype)
        source.read(name, out)
        assert torch.equal(out, torch.from_numpy(expected).to(dtype))
        assert source.kind(name) == "q5_1"
        stored = source.stored(name)
        assert stored.shape == (len(expected), 24 * expected.shape[1] // 32)
        assert np.array_equal(gguf.quants.dequantize(stored.numpy(), kind), expected)


def test_rope_freqs_are_left_to_the_config(tmp_path):
    model = model_for("llama")
    tensors = random_tensors(model)
    path = write_gguf(tmp_path / "model.gguf", tensors, "llama")
    header = read_gguf_header(path)
    header.tensors["rope_freqs.weight"] = header.tensors["output_norm.weight"]

    load_weights(model, Checkpoint(name="tiny", path=path, format=WeightFormat.GGUF, config={}, gguf=header))

    assert model.logits(torch.ones(1, 32)).shape == (1, 50)


def test_unsupported_type_is_named(tmp_path):
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_head_count(HEADS)
    blocks = np.zeros((4, 54), dtype=np.uint8)
    writer.add_tensor("output.weight", blocks, raw_dtype=gguf.GGMLQuantizationType.TQ1_0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(BadCheckpoint, match=r"'output\.weight' is of type TQ1_0; supported: F32, F16, .*Q6_K"):
        GgufSource(path, read_gguf_header(path))
