"""Number formats of vectors, held against torch's own conversions."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headrace.api.pooling.schema import EmbeddingRequest
from headrace.api.pooling.vectors import VectorFormat
from headrace.service import Pooled

TORCH = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "fp8_e4m3": torch.float8_e4m3fn,
    "fp8_e5m2": torch.float8_e5m2,
}


def awkward_values() -> np.ndarray:
    """Of all sizes that each format has, exactly between two numbers of it, and of either sign."""
    rng = np.random.default_rng(0)
    spread = rng.standard_normal(4000) * 2.0 ** rng.integers(-20, 8, 4000)
    grid = np.arange(257) / 256 * 2.0 ** np.arange(-12, 7).reshape(-1, 1)
    return np.concatenate([spread, grid.ravel(), -grid.ravel(), [0.0, -0.0]]).astype("<f4")


@pytest.mark.parametrize("endianness", ["native", "little", "big"])
@pytest.mark.parametrize("dtype", list(TORCH))
def test_conversions(dtype: str, endianness: str) -> None:
    values = awkward_values()
    body = EmbeddingRequest(input="x", encoding_format="base64", embed_dtype=dtype, endianness=endianness)
    packed = VectorFormat(body).packed(Pooled([1], [len(values)], values.tobytes()))
    expected = torch.from_numpy(values).to(TORCH[dtype]).view(torch.uint8).numpy()
    size = TORCH[dtype].itemsize
    rows = np.frombuffer(packed, "u1").reshape(-1, size)
    assert (rows[:, ::-1] if endianness == "big" else rows).tobytes() == expected.tobytes()


def test_what_is_too_large_for_eight_bits_becomes_the_largest() -> None:
    pooled = Pooled([1], [2], np.array([1e6, -1e6], "<f4").tobytes())
    for dtype, largest in (("fp8_e4m3", 448.0), ("fp8_e5m2", 57344.0)):
        body = EmbeddingRequest(input="x", encoding_format="base64", embed_dtype=dtype)
        codes = torch.frombuffer(bytearray(VectorFormat(body).packed(pooled)), dtype=TORCH[dtype])
        assert codes.float().tolist() == [largest, -largest]
