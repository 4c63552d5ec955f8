"""Tensors of a folder with safetensors files, mapped into memory."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headrace.core.errors import BadCheckpoint

_INDEX = "model.safetensors.index.json"
_ELEMENT_BYTES = {"F32": 4, "F16": 2, "BF16": 2}
_BUFFERS = ("I64", "BOOL")
"""Types of no weights: tables of positions, masks, that old versions of transformers saved."""


class SafetensorsSource:
    """The float32, float16 and bfloat16 tensors of `folder`; implements `TensorSource`.

    Reads the shards that `model.safetensors.index.json` names, or every .safetensors file if there is no index.
    """

    norm_offset_applied = False

    def __init__(self, folder: Path) -> None:
        self.shapes: dict[str, tuple[int, ...]] = {}
        self._files: dict[str, Any] = {}
        self._dtypes: dict[str, str] = {}
        for path in _files(folder):
            try:
                file = safe_open(path, framework="pt")
            except (OSError, SafetensorError) as error:
                raise BadCheckpoint(f"{path}: not a safetensors file: {error}") from error
            for name in file.keys():  # noqa: SIM118 -- not a mapping
                self._add(path, file, name)

    def size(self, name: str) -> int:
        return prod(self.shapes[name]) * _ELEMENT_BYTES[self._dtypes[name]]

    def kind(self, name: str) -> str:
        return self._dtypes[name].lower()

    def stored(self, name: str) -> Tensor:
        tensor = self._files[name].get_tensor(name)
        return tensor.view(len(tensor), -1).view(torch.uint8)

    def read(self, name: str, out: Tensor) -> None:
        out.copy_(self._files[name].get_tensor(name))

    def _add(self, path: Path, file: Any, name: str) -> None:
        entry = file.get_slice(name)
        dtype = entry.get_dtype()
        if dtype in _BUFFERS:
            return
        if name in self.shapes:
            raise BadCheckpoint(f"{path}: tensor {name!r} is in another file of the checkpoint too")
        self.shapes[name] = tuple(entry.get_shape())
        self._files[name] = file
        if dtype not in _ELEMENT_BYTES:
            raise BadCheckpoint(f"{path}: tensor {name!r} is of type {dtype}; supported: {', '.join(_ELEMENT_BYTES)}")
        self._dtypes[name] = dtype


def _files(folder: Path) -> list[Path]:
    index = folder / _INDEX
    if not index.exists():
        return sorted(folder.glob("*.safetensors"))
    try:
        weight_map = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        return sorted({folder / shard for shard in weight_map.values()})
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise BadCheckpoint(f"{index}: not an index of safetensors files: {error!r}") from error
