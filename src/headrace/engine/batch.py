"""From a plan to flat tensors."""

from __future__ import annotations

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
    """Lay the rows of `plan` end to end. Built in numpy and moved to `device` all at once."""
    plan_index = sorted(range(len(plan.rows)), key=lambda index: len(plan.rows[index].token_ids) > 1)
    rows = [plan.rows[index] for index in plan_index]

    counts = np.array([len(row.token_ids) for row in rows])
    starts = np.array([row.start for row in rows])
    context_lens = starts + counts
    query_start = np.concatenate(([0], np.cumsum(counts)))
    owner = np.repeat(np.arange(len(rows)), counts)
    positions = np.arange(query_start[-1]) - query_start[owner] + starts[owner]

    num_blocks = -(-context_lens // block_size)
    blocks = [row.block_table[:used] for row, used in zip(rows, num_blocks.tolist(), strict=True)]
    tables = np.zeros((len(rows), num_blocks.max()), dtype=np.int64)
    tables[np.arange(tables.shape[1]) < num_blocks[:, None]] = list(chain.from_iterable(blocks))
    slots = tables[owner, positions // block_size] * block_size + positions % block_size

    token_ids = np.fromiter(chain.from_iterable(row.token_ids for row in rows), np.int64, count=len(owner))

    parts = (token_ids, positions, slots, context_lens, tables.ravel())
    moved = _to_device(np.concatenate(parts), device).split([len(part) for part in parts])

    return Batch(
        token_ids=moved[0],
        attention=AttentionBatch(
            positions=moved[1],
            slot_mapping=moved[2],
            block_tables=moved[4].view(tables.shape),
            context_lens=moved[3],
            query_start=query_start.tolist(),
            num_decodes=int((counts == 1).sum()),
        ),
        rows=rows,
        plan_index=plan_index,
    )


def _to_device(array: np.ndarray, device: torch.device) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    if device.type == "cpu":
        return tensor
    return tensor.pin_memory().to(device, non_blocking=True)  # from pageable memory it would wait for the device
