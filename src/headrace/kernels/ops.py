"""The operations a model is made of, as a type. `reference.py` says in plain torch what each one means."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's part of the paged KV cache: each [num_blocks, block_size, num_kv_heads, head_dim].

    Block 0 belongs to nobody and is always finite: padded block tables point at it.
    """

    keys: Tensor
    values: Tensor


@dataclass(frozen=True, slots=True)
class AttentionBatch:
    """Where the T tokens of a flat batch sit. The tokens of sequence b are `query_start[b]:query_start[b + 1]`.

    The first `num_decodes` sequences have one token each; longer chunks follow.
    `context_lens[b]` counts the sequence's tokens whose keys exist once this batch has been stored (its own included).
    """

    positions: Tensor
    """int64 [T]: position of each token in its sequence."""
    slot_mapping: Tensor
    """int64 [T]: `block * block_size + offset` at which each token's key and value are written."""
    block_tables: Tensor
    """int64 [B, most blocks]: padded with block 0."""
    context_lens: Tensor
    """int64 [B]"""
    query_start: list[int]
    """B + 1 offsets into the batch."""
    num_decodes: int
