"""Reads the header of a GGUF file: its metadata and where its tensors lie. Tensor data is never touched.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md, versions 2 and 3, little endian.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from headrace.core.errors import BadCheckpoint, ModelNotFound


@dataclass(frozen=True, slots=True)
class GgmlType:
    """How a tensor type is stored: `block_size` neighbouring elements of a row share `block_bytes` bytes."""

    name: str
    block_size: int
    block_bytes: int


GGML_TYPES: dict[int, GgmlType] = {
    0: GgmlType("F32", 1, 4),
    1: GgmlType("F16", 1, 2),
    2: GgmlType("Q4_0", 32, 18),
    3: GgmlType("Q4_1", 32, 20),
    6: GgmlType("Q5_0", 32, 22),
    7: GgmlType("Q5_1", 32, 24),
    8: GgmlType("Q8_0", 32, 34),
    9: GgmlType("Q8_1", 32, 40),
    10: GgmlType("Q2_K", 256, 84),
    11: GgmlType("Q3_K", 256, 110),
    12: GgmlType("Q4_K", 256, 144),
    13: GgmlType("Q5_K", 256, 176),
    14: GgmlType("Q6_K", 256, 210),
    15: GgmlType("Q8_K", 256, 292),
    16: GgmlType("IQ2_XXS", 256, 66),
    17: GgmlType("IQ2_XS", 256, 74),
    18: GgmlType("IQ3_XXS", 256, 98),
    19: GgmlType("IQ1_S", 256, 50),
    20: GgmlType("IQ4_NL", 32, 18),
    21: GgmlType("IQ3_S", 256, 110),
    22: GgmlType("IQ2_S", 256, 82),
    23: GgmlType("IQ4_XS", 256, 136),
    24: GgmlType("I8", 1, 1),
    25: GgmlType("I16", 1, 2),
    26: GgmlType("I32", 1, 4),
    27: GgmlType("I64", 1, 8),
    28: GgmlType("F64", 1, 8),
    29: GgmlType("IQ1_M", 256, 56),
    30: GgmlType("BF16", 1, 2),
    34: GgmlType("TQ1_0", 256, 54),
    35: GgmlType("TQ2_0", 256, 66),
    39: GgmlType("MXFP4", 32, 17),
    40: GgmlType("NVFP4", 64, 36),
    41: GgmlType("Q1_0", 128, 18),
}
"""By the number that stands for the type in a file. Numbers that are missing were withdrawn from the format."""


@dataclass(frozen=True, slots=True)
class GgufTensor:
    """Where one tensor lies: `shape` outermost first, `offset` in bytes from the start of the file."""

    name: str
    type: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and tensor table of a GGUF file.

    A metadata value is an `int`, `float`, `bool` or `str`; an array of numbers is a read-only one-dimensional
    `numpy.ndarray`, an array of strings a `list[str]`, an array of arrays a `list` of those.
    """

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]


def read_gguf_header(path: str | Path) -> GgufHeader:
    """Read metadata and tensor table of the GGUF file at `path`.

    Raises `ModelNotFound` if there is no such file and `BadCheckpoint`, naming the file and what is wrong, if it is
    not GGUF, of another version or byte order, cut short, or contradicts itself.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            if size < _PREAMBLE.size:
                raise BadCheckpoint(f"{path}: not a GGUF file: it holds only {size} bytes")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                return _parse(data)
    except FileNotFoundError:
        raise ModelNotFound(f"{path}: no such file") from None
    except OSError as error:
        raise BadCheckpoint(f"{path}: cannot be read: {error.strerror}") from error
    except _Damage as damage:
        raise BadCheckpoint(f"{path}: {damage}") from None


_PREAMBLE = struct.Struct("<4sIQQ")  # magic, version, number of tensors, number of metadata entries
_U32 = struct.Struct("<I")
_U64 = struct.Struct("<Q")
_TENSOR_TAIL = struct.Struct("<IQ")  # ggml type, offset into the data section

_BOOL, _STRING, _ARRAY = 7, 8, 9
_SCALARS: dict[int, struct.Struct] = {
    0: struct.Struct("<B"),
    1: struct.Struct("<b"),
    2: struct.Struct("<H"),
    3: struct.Struct("<h"),
    4: _U32,
    5: struct.Struct("<i"),
    6: struct.Struct("<f"),
    _BOOL: struct.Struct("<?"),
    10: _U64,
    11: struct.Struct("<q"),
    12: struct.Struct("<d"),
}
_ARRAY_DTYPES = {kind: np.dtype(scalar.format) for kind, scalar in _SCALARS.items()}

_MAX_DIMENSIONS = 4
_MAX_ARRAY_NESTING = 4
_DEFAULT_ALIGNMENT = 32


class _Damage(Exception):
    """What is wrong with the file; `read_gguf_header` adds which file."""


class _Cursor:
    """A position in the file that only moves forward and never past its end."""

    __slots__ = ("data", "position", "size")

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.size = len(data)
        self.position = 0

    def take(self, count: int) -> int:
        """Step over `count` bytes and return where they start."""
        start = self.position
        if count > self.size - start:
            raise _Damage(
                f"cut short or damaged: {count} bytes are expected at byte {start} and the file ends at {self.size}"
            )
        self.position = start + count
        return start

    def unpack(self, layout: struct.Struct) -> tuple:
        return layout.unpack_from(self.data, self.take(layout.size))

    def u32(self) -> int:
        return self.unpack(_U32)[0]

    def u64(self) -> int:
        return self.unpack(_U64)[0]

    def string(self) -> str:
        length = self.u64()
        start = self.take(length)
        try:
            return self.data[start : start + length].decode()
        except UnicodeDecodeError as error:
            raise _Damage(f"the text at byte {start} is not UTF-8: {error.reason}") from None

    def strings(self, count: int) -> list[str]:
        """`count` strings. `string` in a loop, unrolled: vocabularies have a quarter of a million entries."""
        data, position, length_at = self.data, self.position, _U64.unpack_from
        texts: list[str] = []
        try:
            for _ in range(count):
                start = position + 8
                position = start + length_at(data, position)[0]
                texts.append(data[start:position].decode())
        except UnicodeDecodeError as error:
            raise _Damage(f"the text at byte {start} is not UTF-8: {error.reason}") from None
        except (struct.error, IndexError, OverflowError):
            position = self.size + 1  # a length beyond all bounds: reported by `take`
        self.take(position - self.position)
        return texts


def _parse(data: mmap.mmap) -> GgufHeader:
    cursor = _Cursor(data)
    magic, version, num_tensors, num_entries = cursor.unpack(_PREAMBLE)
    if magic != b"GGUF":
        raise _Damage(f"not a GGUF file: it begins with {magic!r}")
    if version & 0xFFFF == 0:
        raise _Damage("a big-endian GGUF file, which is not supported")
    if version not in (2, 3):
        raise _Damage(f"GGUF version {version} is not supported (2 and 3 are); convert the model again")
    metadata: dict[str, Any] = {}
    for _ in range(num_entries):
        key = cursor.string()
        if key in metadata:
            raise _Damage(f"metadata key {key!r} occurs twice")
        metadata[key] = _value(cursor, key, cursor.u32())
    return GgufHeader(metadata, _tensor_table(cursor, num_tensors, _alignment(metadata)))


def _value(cursor: _Cursor, key: str, kind: int, nesting: int = 0) -> Any:
    if kind == _STRING:
        return cursor.string()
    if kind in _SCALARS:
        return cursor.unpack(_SCALARS[kind])[0]
    if kind != _ARRAY:
        raise _Damage(f"metadata key {key!r} has a value of unknown type {kind}")
    if nesting == _MAX_ARRAY_NESTING:
        raise _Damage(f"metadata key {key!r} nests arrays more than {_MAX_ARRAY_NESTING} deep")
    element_kind, count = cursor.u32(), cursor.u64()
    if element_kind == _STRING:
        return cursor.strings(count)
    if element_kind in _SCALARS:
        dtype = _ARRAY_DTYPES[element_kind]
        start = cursor.take(count * dtype.itemsize)
        return np.frombuffer(cursor.data[start : cursor.position], dtype)  # of a copy: the map is closed at the end
    return [_value(cursor, key, element_kind, nesting + 1) for _ in range(count)]


def _alignment(metadata: dict[str, Any]) -> int:
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1 or alignment & (alignment - 1):
        raise _Damage(f"general.alignment is {alignment!r}, it must be a power of two")
    return alignment


def _tensor_table(cursor: _Cursor, count: int, alignment: int) -> dict[str, GgufTensor]:
    entries: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(count):
        name = cursor.string()
        dimensions = cursor.u32()
        if dimensions > _MAX_DIMENSIONS:
            raise _Damage(f"tensor {name!r} has {dimensions} dimensions, at most {_MAX_DIMENSIONS} are allowed")
        shape = tuple(cursor.u64() for _ in range(dimensions))[::-1]
        entries.append((name, shape, *cursor.unpack(_TENSOR_TAIL)))
    data_start = -(-cursor.position // alignment) * alignment
    tensors: dict[str, GgufTensor] = {}
    for name, shape, kind, offset in entries:
        if name in tensors:
            raise _Damage(f"tensor {name!r} occurs twice")
        if offset % alignment:
            raise _Damage(f"tensor {name!r} lies at {offset}, which is not a multiple of the alignment {alignment}")
        tensors[name] = _tensor(name, kind, shape, data_start + offset, cursor.size)
    return tensors


def _tensor(name: str, kind: int, shape: tuple[int, ...], offset: int, file_size: int) -> GgufTensor:
    layout = GGML_TYPES.get(kind)
    if layout is None:
        raise _Damage(f"tensor {name!r} is of type {kind}, which is unknown")
    row = shape[-1] if shape else 1
    if row % layout.block_size:
        raise _Damage(
            f"tensor {name!r} has rows of {row} elements, type {layout.name} needs a multiple of {layout.block_size}"
        )
    nbytes = prod(shape) // layout.block_size * layout.block_bytes
    if offset + nbytes > file_size:
        raise _Damage(
            f"cut short: tensor {name!r} ends at byte {offset + nbytes}, the file at {file_size}; fetch it again"
        )
    return GgufTensor(name, layout.name, shape, offset, nbytes)
