"""The relative position bias of T5 and MPNet, spelled out by distance."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headrace.models.encoder_spec import RelativeBias


def bias_by_distance(table: Tensor, spec: RelativeBias, longest: int) -> Tensor:
    """What is added to a score, for sequences of up to `longest` tokens, from `table` [buckets, heads].

    Returns float32 [heads, 2 * longest - 1]; the entry for a key at position k and a query at position q is number
    `k - q + longest - 1`.
    """
    distances = torch.arange(1 - longest, longest)
    return table.float().cpu()[_buckets(distances, spec)].T.contiguous()


def _buckets(distances: Tensor, spec: RelativeBias) -> Tensor:
    """arXiv 1910.10683, section 2.1, as its published code has it; a key before its query has a negative distance."""
    half = spec.num_buckets // 2
    exact = half // 2
    steps = distances.abs()
    scale = (half - exact) / math.log(spec.max_distance / exact)
    far = exact + (torch.log(steps.clamp(min=1).float() / exact) * scale).long()
    return torch.where(steps < exact, steps, far.clamp(max=half - 1)) + half * (distances > 0)
