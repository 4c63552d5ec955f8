"""The operations a model is made of, as a type. `reference.py` says in plain torch what each one means.

Shapes: T tokens of a flat batch, B sequences, Hq query heads, Hk key/value heads, D head dimension. The dtype is the
model's; norm weights are float32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True)
class LayerKV:
    """One layer's part of the paged KV cache: each [num_blocks, block_size, num_kv_heads, head_dim], blocks apart.

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


@dataclass(frozen=True, slots=True)
class AttentionRules:
    """What distinguishes one layer's attention from another's, its tensors aside.

    Scores are `query · key * scale`, then `soft_cap * tanh(score / soft_cap)` where there is a soft cap. A token sees
    itself and what came before it, of that the last `window` tokens (itself counted) where there is a window.
    """

    scale: float
    window: int | None = None
    soft_cap: float | None = None


@dataclass(frozen=True, slots=True)
class WholeAttentionRules:
    """What distinguishes one layer's attention over whole sequences from another's.

    Scores are `query · key * scale`, plus `bias[head, k - q + N // 2]` for positions q and k where there is a `bias`,
    of the model's dtype, [Hq, N] with an odd N that covers all distances. A token sees its whole sequence or, with a
    `window`, what is at most so many positions away, on either side.
    """

    scale: float
    window: int | None = None
    bias: Tensor | None = None


@dataclass(frozen=True, slots=True)
class Rotation:
    """By how much each token's heads are rotated: `x * cos + swap(x) * sin`, where swap exchanges the two halves.

    Both [T, 1, R]; the first R dimensions of a head are rotated, the others stay. Both halves of `cos` are equal, the
    first half of `sin` carries the minus sign.
    """

    cos: Tensor
    sin: Tensor


class Attention(Protocol):
    """The attention of one batch under one set of rules, shared by all layers with those rules."""

    def __call__(self, queries: Tensor, kv: LayerKV) -> Tensor:
        """Attend with `queries` [T, Hq, D] to what is stored in `kv`. Returns [T, Hq * D]."""
        ...


class WholeAttention(Protocol):
    """The attention of one batch of whole sequences, shared by all layers with the same rules."""

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """All [T, Hq, D]. Returns [T, Hq * D]."""
        ...


class Ops(Protocol):
    """Every operation of a decoder's forward pass, and of an encoder's."""

    def pack_weight(self, weight: Tensor) -> Tensor:
        """The [out, in] matrix `weight` in the layout that `linear` reads fastest; only `linear` may look inside.

        The result may be `weight` itself or a copy.
        """
        ...

    def embedding(self, token_ids: Tensor, table: Tensor) -> Tensor:
        """Rows `token_ids` (int64 [T]) of `table` [V, H], as a new tensor [T, H]."""
        ...

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """`x @ weight.T + bias` for `x` [T, in], `weight` [out, in], packed or not, and `bias` [out]."""
        ...

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        """`x / sqrt(mean(x²) + eps) * weight` over the last dimension, in float32, as a new tensor.

        `weight` is [N] or, where every head has its own, [heads, N] for `x` [T, heads, N].
        """
        ...

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        """Add `x` to `residual` in place and return the norm of the sum. All [T, H]."""
        ...

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        """`(x - mean(x)) / sqrt(variance(x) + eps) * weight + bias` over the last dimension, in float32, as a new
        tensor. `weight` and `bias` [N].
        """
        ...

    def silu_mul(self, x: Tensor) -> Tensor:
        """`silu(gate) * up` for `x` = [gate | up], [T, 2 * I]. Returns [T, I]."""
        ...

    def gelu_tanh_mul(self, x: Tensor) -> Tensor:
        """`gelu(gate) * up`, in gelu's tanh form, for `x` = [gate | up], [T, 2 * I]. Returns [T, I]."""
        ...

    def rotate_and_store(self, qk: Tensor, values: Tensor, rotation: Rotation, kv: LayerKV, slots: Tensor) -> None:
        """Rotate queries and keys in place and write keys and values to the cache.

        `qk` [T, Hq + Hk, D] holds the query heads, then the key heads; `values` [T, Hk, D]; `slots` int64 [T].
        """
        ...

    def rotate(self, qk: Tensor, rotation: Rotation) -> None:
        """Rotate `qk` [T, heads, D] in place."""
        ...

    def attention(self, batch: AttentionBatch, rules: AttentionRules, block_size: int) -> Attention:
        """Work out, once a step, what every layer with these rules will need."""
        ...

    def whole_attention(self, lengths: Sequence[int], rules: WholeAttentionRules) -> WholeAttention:
        """Work out, once a batch of sequences of `lengths`, what every layer with these rules will need."""
        ...

    def soft_cap(self, logits: Tensor, cap: float) -> Tensor:
        """`cap * tanh(logits / cap)`, in place."""
        ...
