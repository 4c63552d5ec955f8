"""A plan as flat tensors: every token where a naive loop puts it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.sampling import TokenSampling
from headrace.engine.batch import build_batch
from headrace.schedule.plan import PlanRow, StepPlan

SAMPLING = TokenSampling(temperature=0.0, seed=0, max_tokens=1)


@st.composite
def plans(draw: st.DrawFn) -> tuple[StepPlan, int]:
    """Rows of one and of several tokens in any order, with just enough blocks in their tables or more."""
    block_size = draw(st.sampled_from([1, 4, 16]))
    rows = []
    block = 1
    for index in range(draw(st.integers(1, 6))):
        start, count = draw(st.integers(0, 40)), draw(st.sampled_from([1, 1, 2, 5, 30]))
        needed = -(-(start + count) // block_size)
        rows.append(
            PlanRow(
                request_id=str(index),
                choice=0,
                token_ids=[1000 * index + i for i in range(count)],
                start=start,
                block_table=list(range(block, block + needed + draw(st.integers(0, 2))))[::-1],
                sampling=SAMPLING,
                samples=True,
                output_index=0,
            )
        )
        block += needed + 2
    return StepPlan(rows), block_size


@given(plans())
def test_every_token_is_where_it_belongs(plan_and_size: tuple[StepPlan, int]) -> None:
    plan, block_size = plan_and_size
    batch = build_batch(plan, block_size, torch.device("cpu"))
    attention = batch.attention

    assert sorted(batch.plan_index) == list(range(len(plan.rows)))
    assert batch.rows == [plan.rows[index] for index in batch.plan_index]
    counts = [len(row.token_ids) for row in batch.rows]
    assert all(count == 1 for count in counts[: attention.num_decodes])
    assert all(count > 1 for count in counts[attention.num_decodes :])

    token_ids, positions, slots, query_start = [], [], [], [0]
    for row in batch.rows:
        for offset, token_id in enumerate(row.token_ids):
            position = row.start + offset
            token_ids.append(token_id)
            positions.append(position)
            slots.append(row.block_table[position // block_size] * block_size + position % block_size)
        query_start.append(len(token_ids))
    assert batch.token_ids.tolist() == token_ids
    assert attention.positions.tolist() == positions
    assert attention.slot_mapping.tolist() == slots
    assert attention.query_start == query_start
    assert attention.context_lens.tolist() == [row.start + len(row.token_ids) for row in batch.rows]

    widest = max(-(-length // block_size) for length in attention.context_lens.tolist())
    for row, table, length in zip(batch.rows, attention.block_tables.tolist(), attention.context_lens, strict=True):
        used = -(-int(length) // block_size)
        assert table == row.block_table[:used] + [0] * (widest - used)
    for tensor in (batch.token_ids, attention.positions, attention.slot_mapping, attention.block_tables):
        assert tensor.dtype is torch.int64
        assert tensor.is_contiguous()
