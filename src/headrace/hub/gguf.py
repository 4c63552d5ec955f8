"""(header reader: being written)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
    """Metadata and tensor table of a GGUF file."""

    metadata: dict[str, Any]
    tensors: dict[str, GgufTensor]
