"""What the engine asks of a decoder, whichever kernels it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from headrace.kernels.ops import AttentionBatch
from headrace.models.parameters import Parameter, WeightReader
from headrace.models.spec import DecoderSpec


@dataclass(frozen=True, slots=True, kw_only=True)
class Blueprint:
    """All that a `config.json` says of a decoder. `norm_offset`: see `Family`."""

    spec: DecoderSpec
    parameters: tuple[Parameter, ...]
    norm_offset: float


@dataclass(frozen=True, slots=True, kw_only=True)
class KvLayout:
    """How a decoder keeps one layer's keys, or its values, in a block of the KV cache.

    A block is `block_bytes` bytes, whose order is the decoder's own. Those from `floats_from` on are numbers of type
    `float_dtype`; what stands before them are integers.
    """

    dtype: str
    block_size: int
    """In tokens."""
    block_bytes: int
    float_dtype: torch.dtype
    floats_from: int = 0


KvView = TypeVar("KvView")


class Decoder(Protocol[KvView]):
    """A decoder. `load` gives it its weights, once; after that it never changes."""

    @property
    def spec(self) -> DecoderSpec: ...

    @property
    def blueprint(self) -> Blueprint: ...

    @property
    def kernels(self) -> str:
        """What it runs on: "reference", "native avx2"."""
        ...

    @property
    def precision(self) -> str:
        """What most of its weights are kept in: "float32", "q4_k". Known once they are loaded."""
        ...

    def load(self, weights: WeightReader) -> None:
        """Read every parameter of the blueprint."""
        ...

    def kv_layout(self, block_size: int, dtype: str) -> KvLayout:
        """How keys and values are kept as `dtype`, a value of --kv-cache-dtype. Not before `load`.

        Raises `ConfigError`, naming the flag, if it cannot keep them so.
        """
        ...

    def kv_view(self, memory: Tensor, layout: KvLayout) -> KvView:
        """What `forward` takes as its KV cache: a view on `memory`, uint8 [blocks, layers, 2, layout.block_bytes]."""
        ...

    def forward(
        self, token_ids: Tensor, batch: AttentionBatch, kv: KvView, output_start: Sequence[int] | None = None
    ) -> Tensor:
        """Run `token_ids` (int64 [T]) and write their keys and values into `kv`.

        Of the tokens of sequence b, the hidden states of the last `output_start[b + 1] - output_start[b]` are asked
        for; without an `output_start`, those of all. Returns them, normalised, [R, hidden_size], from
        `output_start[b]` on those of sequence b. The next call may overwrite them.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """float32 [R, vocab_size] for rows `hidden` [R, hidden_size] of what `forward` returned.

        The caller may write to them; the next call of `logits` may as well.
        """
        ...


def name_of(dtype: torch.dtype) -> str:
    """As flags spell it: "float32"."""
    return str(dtype).removeprefix("torch.")
