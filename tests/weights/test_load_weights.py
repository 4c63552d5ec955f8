"""Loading: what is put where, and what is said of a checkpoint that does not fit its config."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file

from headrace.core.errors import BadCheckpoint
from headrace.hub import Checkpoint, WeightFormat
from headrace.kernels import select_ops
from headrace.models import TorchDecoder, read_blueprint
from headrace.weights import load_weights
from headrace.weights.load import Reader
from headrace.weights.safetensors import SafetensorsSource

CPU = torch.device("cpu")
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 11,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 1,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 32,
    "rms_norm_eps": 1e-5,
}
SHAPES = {
    "model.embed_tokens.weight": (11, 8),
    "model.norm.weight": (8,),
    "lm_head.weight": (11, 8),
    "model.layers.0.self_attn.q_proj.weight": (8, 8),
    "model.layers.0.self_attn.k_proj.weight": (4, 8),
    "model.layers.0.self_attn.v_proj.weight": (4, 8),
    "model.layers.0.self_attn.o_proj.weight": (8, 8),
    "model.layers.0.mlp.gate_proj.weight": (12, 8),
    "model.layers.0.mlp.up_proj.weight": (12, 8),
    "model.layers.0.mlp.down_proj.weight": (8, 12),
    "model.layers.0.input_layernorm.weight": (8,),
    "model.layers.0.post_attention_layernorm.weight": (8,),
}


@pytest.fixture
def tensors():
    torch.manual_seed(0)
    return {name: torch.randn(shape) for name, shape in SHAPES.items()}


def decoder(config=CONFIG, dtype=torch.float32):
    return TorchDecoder(read_blueprint(config), select_ops(CPU), dtype=dtype, device=CPU)


def load(folder, tensors, *, config=CONFIG, dtype=torch.float32, progress=None):
    save_file(tensors, folder / "model.safetensors")
    checkpoint = Checkpoint(name="tiny", path=folder, format=WeightFormat.SAFETENSORS, config=config)
    model = decoder(config, dtype)
    load_weights(model, checkpoint, progress)
    return model


class Recording(Reader):
    """Notes what a decoder asks for, as it gets it."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        self.taken = {}

    def tensor(self, parameter, dtype, device):
        self.taken[parameter.name] = super().tensor(parameter, dtype, device)
        return self.taken[parameter.name]


def received(folder, tensors, *, config=CONFIG, dtype=torch.float32):
    """The parameters that a decoder is given, before it packs them."""
    save_file(tensors, folder / "model.safetensors")
    model = decoder(config, dtype)
    reader = Recording(SafetensorsSource(folder), model.blueprint, None)
    model.load(reader)
    return reader.taken


def test_matrices_are_stacked_in_order(tmp_path, tensors):
    taken = received(tmp_path, tensors)

    layer = "model.layers.0."
    qkv = [tensors[f"{layer}self_attn.{name}_proj.weight"] for name in "qkv"]
    assert torch.equal(taken["layers.0.qkv"], torch.cat(qkv))
    gate_up = [tensors[f"{layer}mlp.{name}_proj.weight"] for name in ("gate", "up")]
    assert torch.equal(taken["layers.0.gate_up"], torch.cat(gate_up))
    assert torch.equal(taken["lm_head"], tensors["lm_head.weight"])


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_values_are_rounded_to_the_model_dtype_except_norms(tmp_path, tensors, stored):
    tensors = {name: tensor.to(stored) for name, tensor in tensors.items()}

    taken = received(tmp_path, tensors, dtype=torch.bfloat16)

    assert torch.equal(taken["embedding"], tensors["model.embed_tokens.weight"].bfloat16())
    assert taken["final_norm"].dtype is torch.float32
    assert torch.equal(taken["final_norm"], tensors["model.norm.weight"].float())


@pytest.mark.parametrize("stored", [torch.float16, torch.bfloat16, torch.float32])
def test_stored_matrices_are_handed_out_as_they_are(tmp_path, tensors, stored):
    tensors = {name: tensor.to(stored) for name, tensor in tensors.items()}
    save_file(tensors, tmp_path / "model.safetensors")
    blueprint = read_blueprint(CONFIG)
    reader = Reader(SafetensorsSource(tmp_path), blueprint, None)
    (part,) = next(parameter.parts for parameter in blueprint.parameters if parameter.name == "layers.0.down")

    rows = reader.stored(part)

    assert reader.kind(part) == {torch.float16: "f16", torch.bfloat16: "bf16", torch.float32: "f32"}[stored]
    assert rows.shape == (8, 12 * stored.itemsize)
    assert torch.equal(rows.view(stored), tensors[part.name])
    assert torch.equal(reader.values(part, torch.float32), tensors[part.name].float())


def test_gemma_norms_get_their_offset_in_float32(tmp_path):
    config = {**CONFIG, "architectures": ["Gemma3ForCausalLM"], "head_dim": 2}
    config |= {"sliding_window": 8, "query_pre_attn_scalar": 4}
    model = decoder(config)
    tensors = {
        part.name: torch.full(part.shape, 1e-3) for parameter in model.blueprint.parameters for part in parameter.parts
    }

    taken = received(tmp_path, tensors, config=config, dtype=torch.bfloat16)

    assert torch.equal(taken["final_norm"], torch.full((8,), 1e-3) + 1)
    assert torch.equal(taken["layers.0.qk_norm"], torch.full((6, 2), 1e-3) + 1)


def test_tied_head_may_be_stored_twice(tmp_path, tensors):
    config = {**CONFIG, "tie_word_embeddings": True}
    model = load(tmp_path, tensors, config=config)

    hidden = torch.randn(2, 8)
    torch.testing.assert_close(model.logits(hidden), hidden @ tensors["model.embed_tokens.weight"].T)


def test_progress_counts_every_byte_once(tmp_path, tensors):
    calls = []
    load(tmp_path, tensors, progress=lambda done, total: calls.append((done, total)))

    total = sum(tensor.nbytes for tensor in tensors.values())
    assert calls[-1] == (total, total)
    assert [done for done, _ in calls] == sorted({done for done, _ in calls})


def test_saved_rotary_frequencies_are_ignored(tmp_path, tensors):
    load(tmp_path, {**tensors, "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(1)})


def test_missing_tensors_are_named(tmp_path, tensors):
    del tensors["model.norm.weight"]
    with pytest.raises(BadCheckpoint, match=r"tensors 'model\.norm\.weight' missing"):
        load(tmp_path, tensors)


def test_left_over_tensors_are_named(tmp_path, tensors):
    tensors["model.layers.0.self_attn.q_proj.bias"] = torch.zeros(8)
    with pytest.raises(BadCheckpoint, match=r"'model\.layers\.0\.self_attn\.q_proj\.bias' left over"):
        load(tmp_path, tensors)


def test_misshaped_tensor_is_named(tmp_path, tensors):
    tensors["lm_head.weight"] = torch.zeros(12, 8)
    with pytest.raises(BadCheckpoint, match=r"'lm_head\.weight' has shape \[12, 8\], \[11, 8\] is expected"):
        load(tmp_path, tensors)


def test_unknown_type_is_named(tmp_path, tensors):
    tensors["lm_head.weight"] = torch.zeros(11, 8, dtype=torch.int8)
    with pytest.raises(BadCheckpoint, match=r"'lm_head\.weight' is of type I8; supported: F32, F16, BF16"):
        load(tmp_path, tensors)


def test_damaged_file_is_named(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0not json")
    checkpoint = Checkpoint(name="tiny", path=tmp_path, format=WeightFormat.SAFETENSORS, config=CONFIG)
    model = decoder()
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors: not a safetensors file"):
        load_weights(model, checkpoint)


def test_tensor_in_two_shards_is_refused(tmp_path, tensors):
    save_file(tensors, tmp_path / "a.safetensors")
    save_file({"lm_head.weight": tensors["lm_head.weight"]}, tmp_path / "b.safetensors")
    checkpoint = Checkpoint(name="tiny", path=tmp_path, format=WeightFormat.SAFETENSORS, config=CONFIG)
    model = decoder()
    with pytest.raises(BadCheckpoint, match=r"b\.safetensors: tensor 'lm_head\.weight' is in another file"):
        load_weights(model, replace(checkpoint))
