"""Attention in both directions over whole sequences, in plain torch.

Sequences of one length run as one dense batch. What is the same for all layers (who is in which batch, masks) is worked
out once, when the object is made.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.ops import WholeAttentionRules

QUERY_TILE = 256
"""Queries that share a mask: bounds its size, and keys outside of all their windows are never touched."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """Queries `first:last` of a sequence, which see keys `low:high`."""

    first: int
    last: int
    low: int
    high: int
    mask: Tensor | None
    """[heads or nothing, last - first, high - low]: bool, or what is added to the scores; None: all keys as they are"""


@dataclass(frozen=True, slots=True)
class _Group:
    """`count` sequences of one length. `rows` are their tokens, int64 [count * length], or a slice of the batch."""

    count: int
    rows: Tensor | slice
    tiles: list[_Tile]


class WholeAttention:
    """The attention of sequences of `lengths` under `rules`; implements `kernels.ops.WholeAttention`."""

    def __init__(self, lengths: Sequence[int], rules: WholeAttentionRules, device: torch.device) -> None:
        self._scale = rules.scale
        starts_by_length: dict[int, list[int]] = {}
        for length, end in zip(lengths, accumulate(lengths), strict=True):
            starts_by_length.setdefault(length, []).append(end - length)
        self._groups = [
            _Group(len(starts), _rows(starts, length, device), _tiles(length, rules, device))
            for length, starts in starts_by_length.items()
        ]

    def __call__(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        for group in self._groups:
            # [sequences, heads, tokens, head_dim]
            q, k, v = (x[group.rows].unflatten(0, (group.count, -1)).transpose(1, 2) for x in (queries, keys, values))
            attended = [self._attend(tile, q, k, v) for tile in group.tiles]
            out[group.rows] = torch.cat(attended, dim=2).transpose(1, 2).flatten(0, 1)
        return out.flatten(1)

    def _attend(self, tile: _Tile, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        return F.scaled_dot_product_attention(
            queries[:, :, tile.first : tile.last],
            keys[:, :, tile.low : tile.high],
            values[:, :, tile.low : tile.high],
            attn_mask=tile.mask,
            scale=self._scale,
        )


def _rows(starts: list[int], length: int, device: torch.device) -> Tensor | slice:
    if all(there + length == then for there, then in pairwise(starts)):
        return slice(starts[0], starts[-1] + length)
    return (torch.tensor(starts, device=device)[:, None] + torch.arange(length, device=device)).flatten()


def _tiles(length: int, rules: WholeAttentionRules, device: torch.device) -> list[_Tile]:
    if rules.bias is None and (rules.window is None or rules.window >= length - 1):
        return [_Tile(0, length, 0, length, None)]
    tiles = []
    reach = length if rules.window is None else rules.window
    for first in range(0, length, QUERY_TILE):
        last = min(first + QUERY_TILE, length)
        low, high = max(first - reach, 0), min(last + reach, length)
        distances = torch.arange(low, high, device=device) - torch.arange(first, last, device=device)[:, None]
        mask = distances.abs() <= reach
        if rules.bias is not None:
            bias = rules.bias[:, distances + rules.bias.shape[1] // 2]
            mask = bias.masked_fill(~mask, -torch.inf)
        tiles.append(_Tile(first, last, low, high, mask))
    return tiles
