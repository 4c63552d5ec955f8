"""A row of the vocabulary's size cut into tiles, so that few passes over all of it are needed."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TILE = 128
"""Tokens per tile. Most vocabularies are a multiple of it, and then cutting copies nothing."""


def tiles(rows: Tensor, fill: float) -> Tensor:
    """`rows` [R, V] as [R, ceil(V / TILE), TILE]; `fill` stands in the places beyond V."""
    spare = -rows.shape[-1] % TILE
    padded = functional.pad(rows, (0, spare), value=fill) if spare else rows
    return padded.unflatten(-1, (-1, TILE))


def best_tokens(rows: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` highest values of each row of `rows` [R, V] float32, in descending order, and their ids [R, count].

    Which of several equal values come first, or come in at the end, is arbitrary. The best tokens lie in the tiles with
    the highest maxima, which leaves little to search.
    """
    cut = tiles(rows, -torch.inf)
    if cut.shape[1] <= count:
        best = rows.topk(count, dim=-1)
        return best.values, best.indices
    promising = cut.amax(-1).topk(count, dim=-1, sorted=False).indices
    values, places = _pick(cut, promising).flatten(1).topk(count, dim=-1)
    return values, promising.gather(-1, places // TILE) * TILE + places % TILE


def _pick(cut: Tensor, which: Tensor) -> Tensor:
    """The tiles `which` [R, N] of `cut` [R, T, TILE]: [R, N, TILE]."""
    return cut[torch.arange(len(cut), device=cut.device)[:, None], which]
