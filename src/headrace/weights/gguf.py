"""Tensors of a GGUF file, mapped into memory and dequantised as they are read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from headrace.core.errors import BadCheckpoint
from headrace.hub.gguf import GgufHeader
from headrace.weights.dequantize import SUPPORTED, dequantize
from headrace.weights.gguf_names import hugging_face_name

_STAGED_ELEMENTS = 1 << 22
"""Most elements decoded into a temporary array at once, where the target cannot be decoded into directly."""


class GgufSource:
    """The tensors of the GGUF file at `path`, under their Hugging Face names; implements `TensorSource`."""

    norm_offset_applied = True

    def __init__(self, path: Path, header: GgufHeader) -> None:
        self._architecture = header.metadata.get("general.architecture", "")
        self._tensors = {hugging_face_name(name, self._architecture): entry for name, entry in header.tensors.items()}
        self.shapes = {name: entry.shape for name, entry in self._tensors.items()}
        for entry in header.tensors.values():
            if entry.type not in SUPPORTED:
                raise BadCheckpoint(
                    f"{path}: tensor {entry.name!r} is of type {entry.type}; supported: {', '.join(SUPPORTED)}"
                )
        self._heads = {}
        if self._architecture == "llama":
            heads = header.metadata["llama.attention.head_count"]
            self._heads = {"q_proj": heads, "k_proj": header.metadata.get("llama.attention.head_count_kv", heads)}
        # Copy on write because torch warns of memory it must not write to; nothing ever writes.
        self._data = torch.from_numpy(np.memmap(path, dtype=np.uint8, mode="c"))

    def size(self, name: str) -> int:
        return self._tensors[name].nbytes

    def kind(self, name: str) -> str:
        return self._tensors[name].type.lower()

    def stored(self, name: str) -> Tensor:
        """The rows stand in the order of the Hugging Face checkpoint.

        llama.cpp rotates neighbouring dimensions in models of architecture `llama`, Hugging Face's code the halves of
        a head; the converter reorders the rows of the query and key projections (`LlamaModel.permute` in
        convert_hf_to_gguf.py), which is undone here.
        """
        entry = self._tensors[name]
        rows = self._data[entry.offset : entry.offset + entry.nbytes].view(entry.shape[0], -1)
        heads = next((count for module, count in self._heads.items() if f".{module}." in name), None)
        if heads is None:
            return rows
        # By numpy: torch would wake its threads for each of many small copies.
        pairs = rows.numpy().reshape(heads, -1, 2, rows.shape[1])
        return torch.from_numpy(pairs.swapaxes(1, 2).reshape(rows.shape))

    def read(self, name: str, out: Tensor) -> None:
        entry = self._tensors[name]
        rows = self.stored(name)
        if out.dtype is torch.float32 and out.device.type == "cpu" and out.is_contiguous():
            dequantize(entry.type, rows.flatten(), out)
            return
        target = out.view(len(rows), -1)
        step = max(_STAGED_ELEMENTS // target.shape[1], 1)
        for first in range(0, len(rows), step):
            chunk = target[first : first + step]
            staged = torch.empty(chunk.shape, dtype=torch.float32)
            dequantize(entry.type, rows[first : first + step].flatten(), staged)
            chunk.copy_(staged)
