"""The paged attention against a softmax written out token by token."""

from __future__ import annotations

import random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.kernels import AttentionBatch, AttentionRules, LayerKV, select_ops
from headrace.kernels.paged_attention import QUERY_TILE, _similar_lengths

STALE = 1e4
"""What unused slots hold; it shows in any output that it leaks into."""


class Scene:
    """Sequences of random keys and values, scattered over the blocks of a cache, and the chunks to attend for."""

    def __init__(self, chunks, *, block_size, query_heads, kv_heads, head_dim=8, seed=0):
        """`chunks`: (tokens before the chunk, tokens in it), single tokens first."""
        generator = torch.Generator().manual_seed(seed)
        totals = [before + count for before, count in chunks]
        blocks_needed = [-(-total // block_size) for total in totals]
        free = list(range(1, sum(blocks_needed) + 1))
        random.Random(seed).shuffle(free)
        shape = (len(free) + 1, block_size, kv_heads, head_dim)
        self.kv = LayerKV(torch.full(shape, STALE), torch.full(shape, STALE))
        self.keys, self.values, tables, slots, positions = [], [], [], [], []
        for (before, _), total, needed in zip(chunks, totals, blocks_needed, strict=True):
            table, free = free[:needed], free[needed:]
            keys, values = torch.randn(2, total, kv_heads, head_dim, generator=generator)
            own = torch.tensor([table[p // block_size] * block_size + p % block_size for p in range(total)])
            self.kv.keys.flatten(0, 1)[own] = keys
            self.kv.values.flatten(0, 1)[own] = values
            self.keys.append(keys)
            self.values.append(values)
            tables.append(table)
            slots.append(own[before:])
            positions.append(torch.arange(before, total))
        width = max(blocks_needed)
        query_start = [0]
        for _, count in chunks:
            query_start.append(query_start[-1] + count)
        self.queries = torch.randn(query_start[-1], query_heads, head_dim, generator=generator)
        self.block_size = block_size
        self.batch = AttentionBatch(
            positions=torch.cat(positions),
            slot_mapping=torch.cat(slots),
            block_tables=torch.tensor([table + [0] * (width - len(table)) for table in tables]),
            context_lens=torch.tensor(totals),
            query_start=query_start,
            num_decodes=sum(count == 1 for _, count in chunks),
        )

    def attend(self, rules, *, dtype=torch.float32):
        ops = select_ops(torch.device("cpu"))
        kv = LayerKV(self.kv.keys.to(dtype), self.kv.values.to(dtype))
        return ops.attention(self.batch, rules, self.block_size)(self.queries.to(dtype), kv)

    def expected(self, rules):
        rows = []
        heads_per_kv = self.queries.shape[1] // self.kv.keys.shape[2]
        for sequence, (keys, values) in enumerate(zip(self.keys, self.values, strict=True)):
            begin, end = self.batch.query_start[sequence : sequence + 2]
            for token in range(begin, end):
                position = int(self.batch.positions[token])
                low = 0 if rules.window is None else max(position - rules.window + 1, 0)
                row = []
                for head, query in enumerate(self.queries[token]):
                    scores = keys[low : position + 1, head // heads_per_kv] @ query * rules.scale
                    if rules.soft_cap is not None:
                        scores = rules.soft_cap * torch.tanh(scores / rules.soft_cap)
                    row.append(scores.softmax(0) @ values[low : position + 1, head // heads_per_kv])
                rows.append(torch.cat(row))
        return torch.stack(rows)


chunk_lists = st.lists(st.tuples(st.integers(0, 40), st.integers(1, 25)), min_size=1, max_size=6).map(
    lambda chunks: sorted(chunks, key=lambda chunk: chunk[1] > 1)
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    chunks=chunk_lists,
    block_size=st.sampled_from([1, 4, 16]),
    heads=st.sampled_from([(1, 1), (4, 4), (6, 2), (3, 1)]),
    window=st.none() | st.integers(1, 50),
    soft_cap=st.none() | st.floats(0.5, 5.0),
    seed=st.integers(0, 1000),
)
def test_equals_dense_softmax(chunks, block_size, heads, window, soft_cap, seed):
    scene = Scene(chunks, block_size=block_size, query_heads=heads[0], kv_heads=heads[1], seed=seed)
    rules = AttentionRules(scale=0.4, window=window, soft_cap=soft_cap)

    torch.testing.assert_close(scene.attend(rules), scene.expected(rules), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("soft_cap", [None, 1.5])
@pytest.mark.parametrize("window", [None, 100, QUERY_TILE + 37])
@pytest.mark.parametrize("before", [0, 70])
def test_chunk_of_several_tiles(before, window, soft_cap):
    scene = Scene([(before, 2 * QUERY_TILE + 9)], block_size=16, query_heads=2, kv_heads=1)
    rules = AttentionRules(scale=0.3, window=window, soft_cap=soft_cap)

    torch.testing.assert_close(scene.attend(rules), scene.expected(rules), atol=2e-5, rtol=1e-4)


def test_decodes_of_very_different_lengths_are_gathered_apart():
    lengths = [3, 900, 5, 1, 700, 2, 4, 3]
    scene = Scene([(length, 1) for length in lengths], block_size=4, query_heads=4, kv_heads=2)
    rules = AttentionRules(scale=0.3)

    torch.testing.assert_close(scene.attend(rules), scene.expected(rules), atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_close(dtype):
    scene = Scene([(20, 1), (3, 1), (5, 12)], block_size=4, query_heads=4, kv_heads=2)
    rules = AttentionRules(scale=0.3, window=9)
    scene.kv.keys[scene.kv.keys == STALE] = 1e3

    attended = scene.attend(rules, dtype=dtype)

    assert attended.dtype is dtype
    torch.testing.assert_close(attended.float(), scene.expected(rules), atol=0.05, rtol=0.05)


@given(st.lists(st.integers(1, 4000), max_size=60))
def test_groups_hold_every_row_once_and_bound_the_padding(blocks):
    groups = _similar_lengths(blocks, 16)

    assert sorted(row for group in groups for row in group) == list(range(len(blocks)))
    for group in groups:
        lengths = [blocks[row] for row in group]
        assert len(group) == 1 or max(lengths) * len(group) <= 2 * sum(lengths) + len(group)
        assert len(group) == 1 or max(lengths) * len(group) * 16 <= 1 << 15


def test_equal_lengths_make_one_group_in_order():
    assert _similar_lengths([10, 9, 10, 8], 16) == [[0, 1, 2, 3]]
