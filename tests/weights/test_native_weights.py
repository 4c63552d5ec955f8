"""Every ggml type in the native decoder, against the same file dequantised exactly."""

from __future__ import annotations

from typing import Any

import gguf
import numpy as np
import pytest
import torch

from headrace.hub import Checkpoint, WeightFormat, read_gguf_header
from headrace.kernels import AttentionBatch, select_ops
from headrace.kernels.cpu import NoNativeLibrary, load_cpu_kernels
from headrace.kernels.native import MATRIX_KINDS
from headrace.models import Decoder, NativeDecoder, TorchDecoder, WeightStorage, read_blueprint
from headrace.weights import load_weights
from headrace.weights.dequantize import SUPPORTED

CPU = torch.device("cpu")
HEADS, HIDDEN, VOCAB = 4, 256, 96
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": VOCAB,
    "hidden_size": HIDDEN,
    "intermediate_size": 512,
    "num_hidden_layers": 1,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
}
SCALES = {
    "Q4_0": [(0, 0.02)],
    "Q4_1": [(0, 0.02), (2, -0.15)],
    "Q5_0": [(0, 0.01)],
    "Q5_1": [(0, 0.01), (2, -0.15)],
    "Q8_0": [(0, 0.001)],
    "Q2_K": [(80, 0.007), (82, 0.01)],
    "Q3_K": [(108, 0.002)],
    "Q4_K": [(0, 3e-4), (2, 2.2e-3)],
    "Q5_K": [(0, 1.5e-4), (2, 2.2e-3)],
    "Q6_K": [(208, 4e-5)],
}
"""Where a block keeps its float16 scales, and how large they must be for weights of about 0.1."""


def random_rows(kind: str, rows: int, columns: int, seed: int) -> np.ndarray:
    """Random weights stored as `kind`, uint8 [rows, bytes of a row]; all other bits of a block are random."""
    rng = np.random.default_rng(seed)
    floats = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
    if kind in floats:
        values = torch.from_numpy(rng.normal(scale=0.1, size=(rows, columns))).to(floats[kind])
        return values.view(torch.uint8).numpy()
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (rows * columns // elements, size), dtype=np.uint8)
    for offset, scale in SCALES[kind]:
        blocks[:, offset : offset + 2] = np.full((len(blocks), 1), scale, dtype=np.float16).view(np.uint8)
    return blocks.reshape(rows, -1)


@pytest.fixture(scope="module")
def checkpoint_of(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """`checkpoint_of(kind)`: a tiny Llama all of whose matrices are of one type."""

    def make(kind: str) -> Checkpoint:
        path = tmp_path_factory.mktemp(kind) / "model.gguf"
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 1)
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_head_count(HEADS)
        writer.add_head_count_kv(2)
        parameters = read_blueprint(CONFIG).parameters
        for seed, part in enumerate(part for parameter in parameters for part in parameter.parts):
            stored, shape = (kind, part.shape) if len(part.shape) == 2 else ("F32", (1, *part.shape))
            data = random_rows(stored, *shape, seed)
            if len(part.shape) == 1:
                data = data.view(np.float32)[0]
            name = names.get_name(part.name, try_suffixes=(".weight",))
            writer.add_tensor(name, data, raw_dtype=gguf.GGMLQuantizationType[stored])
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        header = read_gguf_header(path)
        return Checkpoint(name=kind, path=path, format=WeightFormat.GGUF, config=CONFIG, gguf=header)

    return make


def native(checkpoint: Checkpoint, storage: WeightStorage) -> NativeDecoder:
    try:
        kernels = load_cpu_kernels(2)
    except NoNativeLibrary as reason:
        pytest.skip(str(reason))
    model = NativeDecoder(read_blueprint(CONFIG), kernels, storage)
    load_weights(model, checkpoint)
    return model


def exact(checkpoint: Checkpoint) -> TorchDecoder:
    model = TorchDecoder(read_blueprint(CONFIG), select_ops(CPU), dtype=torch.float32, device=CPU)
    load_weights(model, checkpoint)
    return model


def logits(model: Decoder[Any]) -> torch.Tensor:
    """Of a prompt of 16 tokens, in block 1."""
    layout = model.kv_layout(16, "float32")
    kv = model.kv_view(torch.zeros(2, 1, 2, layout.block_bytes, dtype=torch.uint8), layout)
    batch = AttentionBatch(
        positions=torch.arange(16),
        slot_mapping=torch.arange(16, 32),
        block_tables=torch.tensor([[1]]),
        context_lens=torch.tensor([16]),
        query_start=[0, 16],
        num_decodes=0,
    )
    return model.logits(model.forward(torch.arange(3, 83, 5), batch, kv))


@pytest.mark.parametrize("kind", SUPPORTED)
def test_stored_as_they_are_only_activations_are_rounded(checkpoint_of: Any, kind: str) -> None:
    checkpoint = checkpoint_of(kind)
    expected = logits(exact(checkpoint))
    model = native(checkpoint, WeightStorage.AS_STORED)
    floats = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
    known = kind.lower() in MATRIX_KINDS
    assert model.precision == floats.get(kind, kind.lower() if known else "float32")
    if kind in floats or not known:
        torch.testing.assert_close(logits(model), expected, atol=1e-4, rtol=1e-4)
    else:
        assert (logits(model) - expected).std() < 0.02 * expected.std()


@pytest.mark.parametrize("kind", SUPPORTED)
def test_as_float32_they_are_exact(checkpoint_of: Any, kind: str) -> None:
    checkpoint = checkpoint_of(kind)
    model = native(checkpoint, WeightStorage.FLOAT32)
    assert model.precision == "float32"
    torch.testing.assert_close(logits(model), logits(exact(checkpoint)), atol=1e-4, rtol=1e-4)
