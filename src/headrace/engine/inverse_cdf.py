"""Drawing from weights with one uniform number each, by a cumulative sum in two levels.

A cumulative sum over the whole vocabulary would be the dearest part of a draw. Instead the weights are summed in tiles,
the tile that holds the drawn quantile is found, and only its tokens are accumulated. Tiles are summed in float32, as
precise as their weights, and everything beyond them in float64; always inside one row and in an order that the
vocabulary size alone decides, so a draw never depends on its batch.
"""

from __future__ import annotations

import torch
from torch import Tensor

from headrace.engine.tiles import TILE, tiles

_BELOW_ONE = 1 - 2.0**-53
"""The largest double below 1. Its product with any total is below that total."""


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The token at quantile `uniforms` [R] float64, in [0, 1), of the distribution proportional to `weights` [R, V].

    `weights` are float32, not negative, with a positive sum in each row; a token of weight 0 is never drawn. A row that
    breaks this gets an arbitrary token of the vocabulary. Returns int64 [R].
    """
    cut = tiles(weights, 0)
    sums = cut.sum(-1).double()
    cumulative = sums.cumsum(-1)
    target = uniforms[:, None] * cumulative[:, -1:]
    tile = _first_above(cumulative, target)
    # Summed here in another order, a tile can differ from its sum there: carry the quantile over, not the amount.
    missing = (cumulative.gather(-1, tile) - target) / sums.gather(-1, tile)
    quantile = (1 - missing).clamp_(0, _BELOW_ONE)
    inside = cut[torch.arange(len(cut), device=cut.device), tile[:, 0]].cumsum(-1, dtype=torch.float64)
    token = tile * TILE + _first_above(inside, quantile * inside[:, -1:])
    return token[:, 0].clamp_(max=weights.shape[-1] - 1)


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """For each row of `cumulative` [R, N], the first index whose value exceeds `target` [R, 1]; int64 [R, 1].

    It has a positive weight, since the value before it is not above the target.
    """
    return torch.searchsorted(cumulative, target, right=True).clamp_(max=cumulative.shape[-1] - 1)
