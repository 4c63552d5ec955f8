"""Drives a model as the engine does: flat batches, block tables, a paged cache with stale contents."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from headrace.hub import Checkpoint, open_checkpoint
from headrace.kernels import AttentionBatch, select_ops
from headrace.kernels.cpu import CpuKernels, NoNativeLibrary, load_cpu_kernels
from headrace.models import Decoder, NativeDecoder, TorchDecoder, WeightStorage, read_blueprint
from headrace.weights import load_weights

CPU = torch.device("cpu")

Source = Path | Checkpoint


def load_reference(source: Source, dtype: torch.dtype = torch.float32) -> TorchDecoder:
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(str(source))
    model = TorchDecoder(read_blueprint(checkpoint.config), select_ops(CPU), dtype=dtype, device=CPU)
    load_weights(model, checkpoint)
    return model


def load_native(
    source: Source, storage: WeightStorage = WeightStorage.FLOAT32, kernels: CpuKernels | None = None
) -> NativeDecoder:
    """Skips the test where the native library was not built; `make test` with CI=true fails without it."""
    checkpoint = source if isinstance(source, Checkpoint) else open_checkpoint(str(source))
    model = NativeDecoder(read_blueprint(checkpoint.config), kernels or native_kernels(), storage)
    load_weights(model, checkpoint)
    return model


LOAD = {"reference": load_reference, "native": load_native}
"""A decoder in float32 on either kind of kernels."""


def native_kernels(threads: int = 2) -> CpuKernels:
    try:
        return load_cpu_kernels(threads)
    except NoNativeLibrary as reason:
        pytest.skip(str(reason))


class PagedDriver:
    """Sequences of a model by number, each with as many blocks as it needs, taken in random order."""

    def __init__(
        self,
        model: Decoder[Any],
        *,
        num_blocks: int = 200,
        block_size: int | None = None,
        kv: str = "auto",
        seed: int = 0,
    ) -> None:
        self.model = model
        self.block_size = block_size or (4 if model.kernels == "reference" else 16)
        layout = model.kv_layout(self.block_size, kv)
        memory = torch.empty(num_blocks + 1, model.spec.num_layers, 2, layout.block_bytes, dtype=torch.uint8)
        if model.kernels == "reference":
            memory.view(layout.float_dtype).fill_(50.0)
        else:
            memory.fill_(0xFF)  # every float is NaN
        self.kv = model.kv_view(memory, layout)
        self._free = list(range(1, num_blocks + 1))
        random.Random(seed).shuffle(self._free)
        self._tables: dict[int, list[int]] = {}
        self._lengths: dict[int, int] = {}

    def step(
        self, chunks: Sequence[tuple[int, Sequence[int]]], outputs: Mapping[int, int] | None = None
    ) -> dict[int, Tensor]:
        """Append to each sequence its next tokens, all in one batch. Returns the logits of all of them or, with
        `outputs`, of so many of each sequence's, the last ones.
        """
        chunks = sorted(chunks, key=lambda chunk: len(chunk[1]) > 1)
        positions, slots, query_start = [], [], [0]
        for sequence, ids in chunks:
            start = self._lengths.get(sequence, 0)
            table = self._tables.setdefault(sequence, [])
            for position in range(start, start + len(ids)):
                if position // self.block_size == len(table):
                    table.append(self._free.pop())
                positions.append(position)
                slots.append(table[position // self.block_size] * self.block_size + position % self.block_size)
            self._lengths[sequence] = start + len(ids)
            query_start.append(len(positions))
        tables = [self._tables[sequence] for sequence, _ in chunks]
        width = max(map(len, tables))
        batch = AttentionBatch(
            positions=torch.tensor(positions),
            slot_mapping=torch.tensor(slots),
            block_tables=torch.tensor([table + [0] * (width - len(table)) for table in tables]),
            context_lens=torch.tensor([self._lengths[sequence] for sequence, _ in chunks]),
            query_start=query_start,
            num_decodes=sum(len(ids) == 1 for _, ids in chunks),
        )
        token_ids = torch.tensor([token for _, ids in chunks for token in ids])
        starts = None
        if outputs is not None:
            starts = list(accumulate((outputs[sequence] for sequence, _ in chunks), initial=0))
        logits = self.model.logits(self.model.forward(token_ids, batch, self.kv, starts)).clone()
        return {
            sequence: logits[begin:end]
            for (sequence, _), (begin, end) in zip(chunks, pairwise(starts or query_start), strict=True)
        }

    def greedy(self, prompt: Sequence[int], count: int, sequence: int = 0) -> list[int]:
        """Continue `prompt` by `count` tokens."""
        logits = self.step([(sequence, prompt)])[sequence]
        tokens = [int(logits[-1].argmax())]
        while len(tokens) < count:
            tokens.append(int(self.step([(sequence, tokens[-1:])])[sequence][-1].argmax()))
        return tokens
