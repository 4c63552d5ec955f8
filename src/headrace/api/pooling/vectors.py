"""Vectors in the number formats that a body may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from headrace.api.pooling.schema import EmbedDtype, Endianness, VectorBody
from headrace.service import Pooled

if TYPE_CHECKING:
    import numpy as np


class VectorFormat:
    """How one body wants its vectors."""

    def __init__(self, body: VectorBody) -> None:
        self._as_numbers = body.encoding_format == "float"
        self.as_bytes = body.encoding_format in ("bytes", "bytes_only")
        self.with_metadata = body.encoding_format == "bytes"
        self.dtype = body.embed_dtype
        self.endianness = body.endianness

    def written(self, pooled: Pooled) -> list[Any] | bytes:
        return pooled.values() if self._as_numbers else self.packed(pooled)

    def packed(self, pooled: Pooled) -> bytes:
        if self.dtype == "float32" and self.endianness != "big":
            return pooled.data
        return _converted(pooled.data, self.dtype, self.endianness)


def _converted(data: bytes, dtype: EmbedDtype, endianness: Endianness) -> bytes:
    import numpy as np  # a sixth of a second that no server should pay to start, and few callers ask for

    values = np.frombuffer(data, "<f4")
    if dtype == "float16":
        packed = values.astype("<f2").view("<u2")
    elif dtype == "bfloat16":
        packed = _bfloat16(values)
    elif dtype == "fp8_e4m3":
        packed = _nearest(values, _e4m3())
    elif dtype == "fp8_e5m2":
        packed = _nearest(values, _e5m2())
    else:
        packed = values.view("<u4")
    return (packed.byteswap() if endianness == "big" else packed).tobytes()


def _bfloat16(values: np.ndarray) -> np.ndarray:
    """The upper halves, rounded to even. Values are finite."""
    bits = values.view("<u4")
    return ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16).astype("<u2")


def _e4m3() -> np.ndarray:
    """What the codes 0 to 0x7e mean; 0x7f is no number."""
    import numpy as np

    code = np.arange(0x7F)
    exponent, mantissa = code >> 3, code & 7
    return np.where(exponent > 0, (8 + mantissa) * 2.0 ** (exponent - 10), mantissa * 2.0**-9)


def _e5m2() -> np.ndarray:
    """What the codes 0 to 0x7b mean; those beyond are infinite or no numbers."""
    import numpy as np

    return (np.arange(0x7C, dtype="<u2") << 8).view("<f2").astype("<f8")


def _nearest(values: np.ndarray, magnitudes: np.ndarray) -> np.ndarray:
    """The code of the nearest magnitude, of two equally near the even one, with the sign on top."""
    import numpy as np

    sizes = np.abs(values).astype("<f8")
    between = (magnitudes[1:] + magnitudes[:-1]) / 2
    down, up = np.searchsorted(between, sizes, "left"), np.searchsorted(between, sizes, "right")
    code = np.where(down % 2 == 0, down, up)
    return (code | np.where(np.signbit(values), 0x80, 0)).astype("u1")
