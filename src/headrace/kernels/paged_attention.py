"""Attention over a paged KV cache, in plain torch.

Sequences with one token are gathered into a few dense batches; longer chunks run one by one, in tiles of queries.
Everything that is the same for all layers (block ids, masks) is worked out once, when the object is made.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.ops import AttentionBatch, AttentionRules, LayerKV

QUERY_TILE = 256
"""Queries of a chunk that share a mask: bounds its size, and keys after the tile's last query are never touched."""

MAX_GATHERED_TOKENS = 1 << 15
"""Most tokens, padding included, whose keys are gathered into one dense batch."""


@dataclass(frozen=True, slots=True)
class _DecodeGroup:
    """Sequences with one token each whose contexts are of similar length."""

    rows: Tensor | None
    """int64 [n]: which tokens of the batch; None: the first `n`, in order."""
    size: int
    block_ids: Tensor
    """int64 [n * blocks]"""
    mask: Tensor
    """bool [n, 1, 1, blocks * block_size]: which keys count."""


@dataclass(frozen=True, slots=True)
class _Tile:
    """Queries `first:last` of a chunk, which see keys `low:high` of those gathered."""

    first: int
    last: int
    low: int
    high: int
    mask: Tensor | None
    """bool [last - first, high - low]; None: plain causal, the first query sees the first key only."""


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A sequence with several tokens, `begin:end` of the batch."""

    begin: int
    end: int
    block_ids: Tensor
    tiles: list[_Tile]


class PagedAttention:
    """The attention of `batch` under `rules`; implements `kernels.ops.Attention`."""

    def __init__(self, batch: AttentionBatch, rules: AttentionRules, block_size: int) -> None:
        self._rules = rules
        self._num_tokens = batch.query_start[-1]
        self._block_size = block_size
        context_lens = batch.context_lens.tolist()
        self._groups = [
            self._decode_group(batch, rows, context_lens)
            for rows in _similar_lengths([self._seen_blocks(n) for n in context_lens[: batch.num_decodes]], block_size)
        ]
        self._chunks = [
            self._chunk(batch, sequence, context_lens[sequence])
            for sequence in range(batch.num_decodes, len(context_lens))
        ]

    def __call__(self, queries: Tensor, kv: LayerKV) -> Tensor:
        if len(self._groups) == 1 and self._groups[0].size == self._num_tokens:
            return self._attend_decodes(self._groups[0], queries, kv).flatten(1)
        out = torch.empty_like(queries, memory_format=torch.contiguous_format)
        for group in self._groups:
            if group.rows is None:
                out[: group.size] = self._attend_decodes(group, queries[: group.size], kv)
            else:
                out[group.rows] = self._attend_decodes(group, queries[group.rows], kv)
        for chunk in self._chunks:
            self._attend_chunk(chunk, queries[chunk.begin : chunk.end], kv, out[chunk.begin : chunk.end])
        return out.flatten(1)

    def _first_block(self, position: int) -> int:
        """The block of the first key that a query at `position` sees."""
        window = self._rules.window
        return 0 if window is None else max(position - window + 1, 0) // self._block_size

    def _seen_blocks(self, context_len: int) -> int:
        """How many blocks the last token of a context sees."""
        return (context_len - 1) // self._block_size - self._first_block(context_len - 1) + 1

    def _decode_group(self, batch: AttentionBatch, rows: list[int], context_lens: list[int]) -> _DecodeGroup:
        device = batch.block_tables.device
        lengths = torch.tensor([context_lens[row] for row in rows], device=device)[:, None]
        first = torch.tensor([self._first_block(context_lens[row] - 1) for row in rows], device=device)[:, None]
        width = max(self._seen_blocks(context_lens[row]) for row in rows)
        in_order = rows == list(range(len(rows)))
        row_ids = torch.tensor(rows, device=device)
        columns = first + torch.arange(width, device=device)
        # A row with fewer blocks than the widest may point past its table's end; the mask hides what it reads there.
        tables = batch.block_tables[: len(rows)] if in_order else batch.block_tables[row_ids]
        block_ids = tables.gather(1, columns.clamp_(max=tables.shape[1] - 1))
        positions = first * self._block_size + torch.arange(width * self._block_size, device=device)
        mask = positions < lengths
        if self._rules.window is not None:
            mask &= positions >= lengths - self._rules.window
        return _DecodeGroup(None if in_order else row_ids, len(rows), block_ids.flatten(), mask[:, None, None, :])

    def _chunk(self, batch: AttentionBatch, sequence: int, context_len: int) -> _Chunk:
        begin, end = batch.query_start[sequence : sequence + 2]
        count = end - begin
        start = context_len - count
        first_block = self._first_block(start)
        block_ids = batch.block_tables[sequence, first_block : (context_len - 1) // self._block_size + 1]
        window, origin = self._rules.window, first_block * self._block_size
        if start == 0 and (window is None or count <= window) and self._rules.soft_cap is None:
            return _Chunk(begin, end, block_ids, [_Tile(0, count, 0, count, None)])
        tiles = []
        for first in range(0, count, QUERY_TILE):
            last = min(first + QUERY_TILE, count)
            low = 0 if window is None else max(start + first - window + 1 - origin, 0)
            high = start + last - origin
            query_positions = torch.arange(start + first, start + last, device=block_ids.device)[:, None]
            key_positions = torch.arange(origin + low, origin + high, device=block_ids.device)
            mask = key_positions <= query_positions
            if window is not None:
                mask &= key_positions > query_positions - window
            tiles.append(_Tile(first, last, low, high, mask))
        return _Chunk(begin, end, block_ids, tiles)

    def _attend_decodes(self, group: _DecodeGroup, queries: Tensor, kv: LayerKV) -> Tensor:
        """[n, Hq, D] for the group's queries [n, Hq, D]."""
        keys = _gather(kv.keys, group.block_ids, group.size)
        values = _gather(kv.values, group.block_ids, group.size)
        # The heads that share keys stand where a chunk has its queries: their keys are then read once for all.
        return self._attend(queries.unflatten(1, (keys.shape[1], -1)), keys, values, group.mask).flatten(1, 2)

    def _attend_chunk(self, chunk: _Chunk, queries: Tensor, kv: LayerKV, out: Tensor) -> None:
        """Fill `out` [n, Hq, D] for the chunk's queries [n, Hq, D]."""
        keys = _gather(kv.keys, chunk.block_ids, 1)
        values = _gather(kv.values, chunk.block_ids, 1)
        heads_first = queries.transpose(0, 1)[None]
        for tile in chunk.tiles:
            seen = slice(tile.low, tile.high)
            attended = self._attend(
                heads_first[:, :, tile.first : tile.last], keys[:, :, seen], values[:, :, seen], tile.mask
            )
            out[tile.first : tile.last] = attended[0].transpose(0, 1)

    def _attend(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
        """Dense attention: queries [n, Hq, q, D], keys and values [n, Hk, k, D], mask bool, broadcast to [n, 1, q, k].

        No mask means causal with as many queries as keys; it does not occur together with a soft cap.
        """
        if mask is not None and self._rules.soft_cap is not None:
            return self._attend_capped(queries, keys, values, mask, self._rules.soft_cap)
        return F.scaled_dot_product_attention(
            queries, keys, values, attn_mask=mask, is_causal=mask is None, scale=self._rules.scale, enable_gqa=True
        )

    def _attend_capped(self, queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor, soft_cap: float) -> Tensor:
        """As `_attend`, with the scores written out: torch's fused attention has no soft cap."""
        grouped = queries.unflatten(1, (keys.shape[1], -1))
        scores = torch.matmul(grouped, keys[:, :, None].transpose(-1, -2)).float().mul_(self._rules.scale)
        scores = scores.div_(soft_cap).tanh_().mul_(soft_cap)
        scores = scores.masked_fill_(~mask.view(-1, 1, 1, *mask.shape[-2:]), float("-inf"))
        weights = scores.softmax(-1).to(values.dtype)
        return torch.matmul(weights, values[:, :, None]).flatten(1, 2)


def _gather(cache: Tensor, block_ids: Tensor, sequences: int) -> Tensor:
    """Blocks of `cache` laid end to end for each of `sequences`: [sequences, Hk, tokens, D]."""
    return cache.index_select(0, block_ids).view(sequences, -1, *cache.shape[2:]).transpose(1, 2)


def _similar_lengths(blocks: list[int], block_size: int) -> list[list[int]]:
    """Split rows 0, 1, … that need so many `blocks` into groups in which padding at most doubles what is read.

    One group where possible, with the rows in order.
    """
    if not blocks:
        return []
    most = MAX_GATHERED_TOKENS // block_size
    if _padding_is_fair(max(blocks), len(blocks), sum(blocks), most):
        return [list(range(len(blocks)))]
    groups: list[list[int]] = []
    widest = total = 0
    for row in sorted(range(len(blocks)), key=blocks.__getitem__, reverse=True):
        if not groups or not _padding_is_fair(widest, len(groups[-1]) + 1, total + blocks[row], most):
            groups.append([])
            widest, total = blocks[row], 0
        groups[-1].append(row)
        total += blocks[row]
    return groups


def _padding_is_fair(widest: int, rows: int, total: int, most: int) -> bool:
    return rows == 1 or widest * rows <= min(2 * total + rows, most)
