"""Dequantisation against the `gguf` package, to the last bit."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
import torch

from headrace.weights import dequantize as module
from headrace.weights.dequantize import SUPPORTED, dequantize

HALVES = {
    "Q4_0": [0],
    "Q4_1": [0, 2],
    "Q5_0": [0],
    "Q5_1": [0, 2],
    "Q8_0": [0],
    "Q2_K": [80, 82],
    "Q3_K": [108],
    "Q4_K": [0, 2],
    "Q5_K": [0, 2],
    "Q6_K": [208],
}
"""Where a block keeps its float16 scales, which must not be random bits: those can be NaN."""


def random_blocks(kind, count, seed=0):
    """Blocks whose quants take every value, uint8 [count, bytes of a block], and the elements of a block."""
    rng = np.random.default_rng(seed)
    elements, size = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[kind]]
    blocks = rng.integers(0, 256, (count, size), dtype=np.uint8)
    for offset in HALVES.get(kind, []):
        scales = rng.normal(size=(count, 1)).astype(np.float16)
        blocks[:, offset : offset + 2] = scales.view(np.uint8)
    if kind in ("F32", "F16", "BF16"):
        numbers = torch.from_numpy(rng.normal(size=(count, 1))).to(getattr(torch, FLOATS[kind]))
        blocks = numbers.view(torch.uint8).numpy()
    return blocks, elements


FLOATS = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}


@pytest.mark.parametrize("kind", SUPPORTED)
def test_bit_equal(kind):
    blocks, elements = random_blocks(kind, 3000)
    expected = gguf.quants.dequantize(blocks, gguf.GGMLQuantizationType[kind])

    out = torch.full((3000, elements), float("nan"))
    dequantize(kind, torch.from_numpy(blocks).flatten(), out)

    assert np.array_equal(out.numpy().view(np.uint32), expected.reshape(out.shape).view(np.uint32))


def test_chunks_make_no_difference(monkeypatch):
    blocks, elements = random_blocks("Q4_K", 21)
    whole, chunked = torch.empty(2, 21, elements)
    dequantize("Q4_K", torch.from_numpy(blocks).flatten(), whole)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 4 * elements)
    dequantize("Q4_K", torch.from_numpy(blocks).flatten(), chunked)

    assert torch.equal(whole, chunked)
