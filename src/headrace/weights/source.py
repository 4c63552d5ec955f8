"""Where tensors come from, whatever the format of the file."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class TensorSource(Protocol):
    """The tensors of a checkpoint under their Hugging Face names."""

    norm_offset_applied: bool
    """Whether norm weights are stored ready to multiply with, or without the family's `norm_offset`."""

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor's name and shape."""
        ...

    def size(self, name: str) -> int:
        """Bytes that the tensor takes in the file."""
        ...

    def kind(self, name: str) -> str:
        """How the tensor is stored: a ggml type in lower case ("f32", "bf16", "q4_k", …)."""
        ...

    def stored(self, name: str) -> Tensor:
        """The tensor's bytes as they are, uint8 [rows, bytes of a row]; not copied where that can be avoided."""
        ...

    def read(self, name: str, out: Tensor) -> None:
        """Fill `out`, of the tensor's shape and any float dtype and device, rounding once if it must."""
        ...
