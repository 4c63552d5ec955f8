"""Drawing from weights with one uniform number each, by a cumulative sum in two levels.

A cumulative sum over the whole vocabulary would be the dearest part of a draw. Instead the weights are summed in tiles
of `TILE` tokens, the tile that holds the drawn quantile is found, and only its tokens are accumulated. Every sum is in
float64, inside one row and in an order that the vocabulary size alone decides, so a draw never depends on its batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

TILE = 128
"""Tokens per tile. Most vocabularies are a multiple of it, and then summing the tiles copies nothing."""


def tile_sums(weights: Tensor) -> Tensor:
    """Sums over consecutive tiles of `weights` [R, V] float32: [R, ceil(V / TILE)] float64."""
    spare = -weights.shape[-1] % TILE
    padded = functional.pad(weights, (0, spare)) if spare else weights
    return padded.unflatten(-1, (-1, TILE)).sum(-1, dtype=torch.float64)


def draw(weights: Tensor, uniforms: Tensor) -> Tensor:
    """The token at quantile `uniforms` [R] float64, in [0, 1), of the distribution proportional to `weights` [R, V].

    `weights` are float32, not negative, with a positive sum in each row; a token of weight 0 is never drawn. A row that
    breaks this gets an arbitrary token of the vocabulary. Returns int64 [R].
    """
    vocab_size = weights.shape[-1]
    cumulative = tile_sums(weights).cumsum(-1)
    below = functional.pad(cumulative, (1, 0))
    target = uniforms * cumulative[:, -1]
    tile = _first_above(cumulative, target)
    start = below.gather(-1, tile[:, None])[:, 0]
    mass = below.gather(-1, tile[:, None] + 1)[:, 0] - start

    offsets = torch.arange(TILE, device=weights.device)
    ids = tile[:, None] * TILE + offsets
    inside = weights.gather(-1, ids.clamp(max=vocab_size - 1)).double()
    inside_cumulative = torch.where(ids < vocab_size, inside, 0).cumsum(-1)
    # The tile's sum was rounded in another order than this one: carry the quantile over, not the amount.
    quantile = (target - start) / mass
    token = tile * TILE + _first_above(inside_cumulative, quantile * inside_cumulative[:, -1])
    return token.clamp(max=vocab_size - 1)


def _first_above(cumulative: Tensor, target: Tensor) -> Tensor:
    """For each row of `cumulative` [R, N], the first index whose value exceeds `target` [R]; it has a positive weight.

    A target that rounding brought up to the row's total is taken as just below it.
    """
    total = cumulative[:, -1]
    target = torch.minimum(target, torch.nextafter(total, torch.zeros_like(total)))
    index = torch.searchsorted(cumulative, target[:, None].contiguous(), right=True)[:, 0]
    return index.clamp(max=cumulative.shape[-1] - 1)
