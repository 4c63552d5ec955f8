"""Tensors under other names than those of their file."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from headrace.core.errors import BadCheckpoint
from headrace.weights.source import TensorSource


class RenamedSource:
    """The tensors of `source`, each called what `name_of` makes of its name; implements `TensorSource`.

    Raises `BadCheckpoint` if two come to have the same name.
    """

    def __init__(self, source: TensorSource, name_of: Callable[[str], str]) -> None:
        self._source = source
        self._names = {name_of(name): name for name in source.shapes}
        if len(self._names) != len(source.shapes):
            twice = sorted(set(source.shapes).difference(self._names.values()))
            raise BadCheckpoint(f"tensor {twice[0]!r} is there under another name too")
        self.norm_offset_applied = source.norm_offset_applied
        self.shapes = {ours: source.shapes[theirs] for ours, theirs in self._names.items()}

    def size(self, name: str) -> int:
        return self._source.size(self._names[name])

    def kind(self, name: str) -> str:
        return self._source.kind(self._names[name])

    def stored(self, name: str) -> Tensor:
        return self._source.stored(self._names[name])

    def read(self, name: str, out: Tensor) -> None:
        self._source.read(self._names[name], out)
