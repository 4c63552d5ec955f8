"""The products of the native library, for every kind of weights, against numpy on what gguf makes of the same bytes."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, dequantize
from numpy.typing import NDArray

from headrace.kernels.native import GROUP, MATRIX_KINDS

INTEGER_KINDS = [kind for kind in MATRIX_KINDS if kind.startswith("q")]
BLOCK_BYTES = {"q4_0": 18, "q4_1": 20, "q5_0": 22, "q5_1": 24, "q8_0": 34, "q4_k": 144, "q5_k": 176, "q6_k": 210}
SCALE_BYTES = {"q6_k": (208,), "q4_1": (0, 2), "q5_1": (0, 2), "q4_k": (0, 2), "q5_k": (0, 2)}
"""Where in a block float16 numbers begin; for the kinds that are not here, at its front."""


def columns_of(kind: str) -> int:
    return 512 if kind.endswith("k") else 96


def stored(kind: str, rows: int, columns: int, seed: int = 0) -> NDArray[np.uint8]:
    """Random rows as in a GGUF file."""
    random = np.random.default_rng(seed)
    if kind not in BLOCK_BYTES:
        values = torch.from_numpy(random.standard_normal((rows, columns), np.float32))
        dtype = {"f32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}[kind]
        return values.to(dtype).view(torch.uint8).numpy()
    elements = 256 if kind.endswith("k") else 32
    blocks = random.integers(0, 256, (rows * columns // elements, BLOCK_BYTES[kind]), np.uint8)
    for at in SCALE_BYTES.get(kind, (0,)):
        halves = random.standard_normal((len(blocks), 1)).astype(np.float16) / 50
        blocks[:, at : at + 2] = halves.view(np.uint8)
    return blocks.reshape(rows, -1)


def decoded(kind: str, data: NDArray[np.uint8]) -> NDArray[np.float32]:
    """What the gguf package says the rows are."""
    return dequantize(data, GGMLQuantizationType[kind.upper()]).astype(np.float32)


def read_all(matrix: Any) -> NDArray[np.float32]:
    out = np.empty((matrix.rows, matrix.columns), np.float32)
    matrix.read_rows(np.arange(matrix.rows), out)
    return out


def linear(library: ModuleType, pool: Any, parts: list[Any], x: NDArray[np.float32]) -> NDArray[np.float32]:
    out = np.empty((len(x), sum(part.rows for part in parts)), np.float32)
    library.linear(pool, parts, None, x, out)
    return out


def rounded(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`x` as integer weights see it: 8 bits and a scale for each 32, which is a multiple of the row's, rounded up."""
    groups = x.reshape(len(x), -1, GROUP)
    peaks = np.abs(groups).max(-1, keepdims=True)
    row_scales = peaks.max(1, keepdims=True) / np.float32(127 * 16383)
    scales = np.ceil(np.minimum(peaks / row_scales / np.float32(127), 16383)) * row_scales
    return (np.rint(groups / scales) * scales).reshape(x.shape).astype(np.float32)


@pytest.mark.parametrize("kind", MATRIX_KINDS)
def test_rows_are_read_back_as_gguf_defines_them(library: ModuleType, pool: Any, kind: str) -> None:
    data = stored(kind, 45, columns_of(kind))
    matrix = library.Matrix(pool, kind, data, columns_of(kind))
    np.testing.assert_allclose(read_all(matrix), decoded(kind, data), rtol=1e-6, atol=1e-7)
    assert (matrix.kind, matrix.rows, matrix.columns) == (kind, 45, columns_of(kind))
    assert data.nbytes <= matrix.nbytes


@pytest.mark.parametrize("kind", MATRIX_KINDS)
def test_products(library: ModuleType, pool: Any, kind: str) -> None:
    data = stored(kind, 75, columns_of(kind))
    matrix = library.Matrix(pool, kind, data, columns_of(kind))
    x = np.random.default_rng(1).standard_normal((13, columns_of(kind)), np.float32)
    seen = rounded(x) if kind in INTEGER_KINDS else x
    weights = decoded(kind, data)
    expected = seen.astype(np.float64) @ weights.T.astype(np.float64)
    size = np.abs(seen).astype(np.float64) @ (np.abs(weights).T.astype(np.float64) + 1.0)
    got = linear(library, pool, [matrix], x)
    # A tie may round the other way in 8 bits; that is 1/127 of a group's largest, rare and tiny in the sum.
    assert (np.abs(got - expected) <= (1e-4 if kind in INTEGER_KINDS else 1e-6) * size).all()


@pytest.mark.parametrize("kind", MATRIX_KINDS)
def test_a_row_alone_is_the_same_row(library: ModuleType, pool: Any, kind: str) -> None:
    matrix = library.Matrix(pool, kind, stored(kind, 75, columns_of(kind)), columns_of(kind))
    x = np.random.default_rng(2).standard_normal((17, columns_of(kind)), np.float32)
    together = linear(library, pool, [matrix], x)
    for row in range(len(x)):
        assert (linear(library, pool, [matrix], x[row : row + 1]) == together[row]).all()


def test_stacked_matrices_bias_and_add(library: ModuleType, pool: Any) -> None:
    kinds = ["q4_1", "f16", "q8_0"]
    matrices = [
        library.Matrix(pool, kind, stored(kind, rows, 64), 64) for kind, rows in zip(kinds, (5, 40, 9), strict=True)
    ]
    random = np.random.default_rng(3)
    x = random.standard_normal((4, 64), np.float32)
    bias, out = random.standard_normal(54).astype(np.float32), random.standard_normal((4, 54)).astype(np.float32)
    expected = out + np.concatenate([linear(library, pool, [one], x) for one in matrices], 1) + bias
    library.linear(pool, matrices, bias, x, out, True)
    np.testing.assert_allclose(out, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("kind", "steps"), [("q8_0", 254), ("q4_1", 15)])
def test_quantize_is_within_half_a_step(library: ModuleType, pool: Any, kind: str, steps: int) -> None:
    values = np.random.default_rng(4).standard_normal((37, 96)).astype(np.float32)
    matrix = library.Matrix.quantize(pool, kind, values)
    groups = values.reshape(37, -1, GROUP)
    width = 2 * np.abs(groups).max(-1) if kind == "q8_0" else np.ptp(groups, -1)
    error = np.abs(read_all(matrix) - values).reshape(groups.shape).max(-1)
    assert (error <= width / steps * 0.51 + np.abs(groups).max(-1) * 2e-3).all()


RUN, MOST = 128, 4095
"""Neighbouring elements of 16 bits that share a scale, and the largest of them."""


def in_runs(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`x` rounded as i16 has it; a run at the end may be shorter."""
    out = np.empty_like(x)
    for first in range(0, x.shape[1], RUN):
        run = x[:, first : first + RUN]
        scales = np.abs(run).max(1, keepdims=True) / np.float32(MOST)
        out[:, first : first + RUN] = np.rint(run / scales) * scales
    return out


@pytest.mark.parametrize("columns", [2, 100, 128, 130, 384])
def test_shorts(library: ModuleType, pool: Any, columns: int) -> None:
    random = np.random.default_rng(6)
    weights = random.standard_normal((75, columns), np.float32)
    x = random.standard_normal((13, columns), np.float32)
    matrix = library.Matrix.quantize(pool, "i16", weights)
    assert (matrix.kind, matrix.rows, matrix.columns) == ("i16", 75, columns)
    np.testing.assert_allclose(read_all(matrix), in_runs(weights), atol=2e-3)  # a step, where a tie went the other way
    expected = in_runs(x).astype(np.float64) @ read_all(matrix).T.astype(np.float64)
    size = np.abs(x).astype(np.float64) @ np.abs(weights).T.astype(np.float64)
    together = linear(library, pool, [matrix], x)
    assert (np.abs(together - expected) <= 1e-4 * size + 1e-6).all()
    for row in range(len(x)):
        assert (linear(library, pool, [matrix], x[row : row + 1]) == together[row]).all()


def test_shorts_are_not_stored_by_files_and_come_in_pairs(library: ModuleType, pool: Any) -> None:
    with pytest.raises(ValueError, match="no file stores i16"):
        library.Matrix(pool, "i16", np.zeros((2, 64), np.uint8), 32)
    with pytest.raises(ValueError, match="multiple of 2"):
        library.Matrix.quantize(pool, "i16", np.zeros((2, 33), np.float32))


def test_nan_stays_in_its_row(library: ModuleType, pool: Any) -> None:
    matrix = library.Matrix(pool, "q4_k", stored("q4_k", 40, 512), 512)
    x = np.random.default_rng(5).standard_normal((5, 512), np.float32)
    clean = linear(library, pool, [matrix], x)
    x[2, 300] = np.nan
    out = linear(library, pool, [matrix], x)
    assert np.isnan(out[2]).all()
    assert (np.delete(out, 2, 0) == np.delete(clean, 2, 0)).all()


def test_what_is_refused(library: ModuleType, pool: Any) -> None:
    rows = np.zeros((2, 18), np.uint8)
    with pytest.raises(ValueError, match="unknown kind of weights: q3_k"):
        library.Matrix(pool, "q3_k", rows, 32)
    with pytest.raises(ValueError, match="multiple of 32"):
        library.Matrix(pool, "q4_0", rows, 33)
    with pytest.raises(ValueError, match="takes 18 bytes, not 17"):
        library.Matrix(pool, "q4_0", np.zeros((2, 17), np.uint8), 32)
    with pytest.raises(ValueError, match="at least one row"):
        library.Matrix(pool, "q4_0", rows[:0], 32)
    with pytest.raises(ValueError, match="q6_k is not possible"):
        library.Matrix.quantize(pool, "q6_k", np.zeros((2, 256), np.float32))
    matrix = library.Matrix(pool, "q4_0", rows, 32)
    x, out = np.zeros((3, 32), np.float32), np.zeros((3, 2), np.float32)
    with pytest.raises(ValueError, match="row 2 is not in the matrix"):
        matrix.read_rows(np.array([0, 2]), np.zeros((2, 32), np.float32))
    with pytest.raises(ValueError, match="x must be"):
        library.linear(pool, [matrix], None, x[:, :16].copy(), out)
    with pytest.raises(ValueError, match="out must be"):
        library.linear(pool, [matrix], None, x, out[:2])
    with pytest.raises(ValueError, match="a bias needs one element"):
        library.linear(pool, [matrix], np.zeros(3, np.float32), x, out)
    with pytest.raises(ValueError, match="needs a matrix"):
        library.linear(pool, [], None, x, out)
    with pytest.raises(ValueError, match="needs a matrix"):
        library.linear(pool, [None], None, x, out)
    with pytest.raises(TypeError):  # these would be written to a copy
        library.linear(pool, [matrix], None, x, out.astype(np.float64))
    with pytest.raises(TypeError):
        library.linear(pool, [matrix], None, x, np.zeros((3, 4), np.float32)[:, ::2])


def test_levels_and_threads_that_do_not_exist(library: ModuleType) -> None:
    with pytest.raises(ValueError, match=r"no instruction set level mmx here; there is portable"):
        library.Pool(1, "mmx")
    with pytest.raises(ValueError, match="at least 1 thread"):
        library.Pool(0)


def test_importing_twice_gives_the_same_library(library: ModuleType) -> None:
    assert importlib.import_module("headrace.kernels.cpu._native") is library
