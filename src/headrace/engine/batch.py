"""From a plan to flat tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch

from headrace.kernels.ops import AttentionBatch
from headrace.schedule.plan import PlanRow, StepPlan


@dataclass(frozen=True, slots=True)
class Batch:
    """A step's input. `rows` are the plan's rows in batch order (single tokens first); `plan_index[b]` is where
    `rows[b]` stood in the plan. `token_ids` is int64 [T]."""

    token_ids: torch.Tensor
    attention: AttentionBatch
    rows: list[PlanRow]
    plan_index: list[int]


def build_batch(plan: StepPlan, block_size: int, device: torch.device) -> Batch:
    """Lay the rows of `plan` end to end."""
    plan_index = sorted(range(len(plan.rows)), key=lambda index: len(plan.rows[index].token_ids) > 1)
    rows = [plan.rows[index] for index in plan_index]
    token_ids, attention = lay_out(
        [row.token_ids for row in rows],
        [row.start for row in rows],
        [row.block_table for row in rows],
        block_size,
        device,
    )
    return Batch(token_ids=token_ids, attention=attention, rows=rows, plan_index=plan_index)


def lay_out(
    chunks: Sequence[Sequence[int]],
    starts: Sequence[int],
    block_tables: Sequence[Sequence[int]],
    block_size: int,
    device: torch.device,
) -> tuple[torch.Tensor, AttentionBatch]:
    """Chunks of tokens, single tokens first, the position of the first token of each, and the blocks of its sequence:
    as token ids, int64 [T], and where they sit. Built in numpy and moved to `device` all at once.
    """
    counts = np.array([len(chunk) for chunk in chunks])
    first = np.array(starts)
    context_lens = first + counts
    query_start = np.concatenate(([0], np.cumsum(counts)))
    owner = np.repeat(np.arange(len(chunks)), counts)
    positions = np.arange(query_start[-1]) - query_start[owner] + first[owner]

    num_blocks = -(-context_lens // block_size)
    blocks = [table[:used] for table, used in zip(block_tables, num_blocks.tolist(), strict=True)]
    tables = np.zeros((len(chunks), num_blocks.max()), dtype=np.int64)
    tables[np.arange(tables.shape[1]) < num_blocks[:, None]] = list(chain.from_iterable(blocks))
    slots = tables[owner, positions // block_size] * block_size + positions % block_size

    token_ids = np.fromiter(chain.from_iterable(chunks), np.int64, count=len(owner))

    parts = (token_ids, positions, slots, context_lens, tables.ravel())
    moved = to_device(np.concatenate(parts), device).split([len(part) for part in parts])
    attention = AttentionBatch(
        positions=moved[1],
        slot_mapping=moved[2],
        block_tables=moved[4].view(tables.shape),
        context_lens=moved[3],
        query_start=query_start.tolist(),
        num_decodes=int((counts == 1).sum()),
    )
    return moved[0], attention


def to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)  # from pageable memory it would wait for the device
