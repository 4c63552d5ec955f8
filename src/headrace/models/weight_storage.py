"""In which precision the native library keeps a checkpoint's matrices, and how they get there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from enum import StrEnum

import torch
from torch import Tensor

from headrace.kernels.native import GROUP, MATRIX_KINDS, Matrix, NativeKernels, RowTable
from headrace.models.parameters import Part, WeightReader


class WeightStorage(StrEnum):
    """What becomes of the matrices of a checkpoint. Norms and biases are always float32."""

    AS_STORED = "auto"
    FLOAT32 = "float32"
    FLOAT16 = "float16"
    BFLOAT16 = "bfloat16"
    INT16 = "int16"
    """Rounded to 13 bits in runs of 128, and what they are multiplied with as well: finer than bfloat16, and multiplied
    faster than floats by most processors."""
    INT8 = "int8"
    """Rounded to 8 bits in groups of 32."""
    INT4 = "int4"
    """Rounded to 4 bits in groups of 32, a decoder's embeddings and output matrix to 8: they suffer most."""


FLOAT_KINDS = {
    "float32": ("f32", torch.float32),
    "float16": ("f16", torch.float16),
    "bfloat16": ("bf16", torch.bfloat16),
}
"""What the library and torch call the float types of the flags, for weights and for keys and values."""

_NAMES = {"i16": "int16"} | {kind: name for name, (kind, _) in FLOAT_KINDS.items()}
_FLOATS = tuple(kind for kind, _ in FLOAT_KINDS.values())


def store_matrix(
    part: Part, weights: WeightReader, kernels: NativeKernels, storage: WeightStorage, *, is_end: bool = False
) -> Matrix:
    """`part` as `storage` has it; `is_end`: it is a decoder's embedding or output matrix.

    What cannot be kept so stays float32: types that the library does not know, rows without whole groups.
    """
    columns = part.shape[1]
    kind, rows = _rows(part, weights, storage, MATRIX_KINDS)
    if (rounded := _rounded_kind(storage, columns, is_end=is_end)) is not None:
        return kernels.quantize(rounded, rows.view(torch.float32))
    return kernels.matrix(kind, rows, columns)


def store_table(part: Part, weights: WeightReader, kernels: NativeKernels, storage: WeightStorage) -> RowTable:
    """The rows of `part`, an encoder's embedding, as floats: where matrices become 8 or 4 bits, in 16."""
    if storage in (WeightStorage.INT8, WeightStorage.INT4):
        storage = WeightStorage.FLOAT16
    kind, rows = _rows(part, weights, storage, _FLOATS)
    return kernels.row_table(kind, rows, part.shape[1])


def precision_of(matrices: Iterable[Matrix]) -> str:
    """What most of them are kept in, by bytes."""
    bytes_by_kind: Counter[str] = Counter()
    for matrix in matrices:
        bytes_by_kind[matrix.kind] += matrix.nbytes
    [(kind, _)] = bytes_by_kind.most_common(1)
    return _NAMES.get(kind, kind)


def _rows(part: Part, weights: WeightReader, storage: WeightStorage, kinds: tuple[str, ...]) -> tuple[str, Tensor]:
    """The matrix as one of `kinds`, uint8 [rows, bytes of a row]: before it is rounded, where it will be."""
    stored = weights.kind(part)
    kind, dtype = FLOAT_KINDS.get(storage, ("f32", torch.float32))
    if storage is WeightStorage.AS_STORED and stored in kinds:
        kind = stored
    return kind, weights.stored(part) if stored == kind else weights.values(part, dtype).view(torch.uint8)


def _rounded_kind(storage: WeightStorage, columns: int, *, is_end: bool) -> str | None:
    match storage:
        case WeightStorage.INT16 if columns % 2 == 0:
            return "i16"
        case WeightStorage.INT4 if columns % GROUP == 0 and not is_end:
            return "q4_1"
        case WeightStorage.INT8 | WeightStorage.INT4 if columns % GROUP == 0:
            return "q8_0"
    return None
