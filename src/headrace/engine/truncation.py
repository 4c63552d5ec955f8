"""min-p, top-k and top-p: which tokens a draw may choose from (contract 3.2, steps 12 to 14).

All three keep the best tokens down to some weight, so together they are one cutoff per row. It is found without
sorting the vocabulary: mostly the `CANDIDATES` best weights hold all that survives.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from headrace.core.sampling import TokenSampling
from headrace.engine.tiles import best_tokens

CANDIDATES = 64
"""Best weights to look at first."""

MORE_CANDIDATES = 4096
"""And next, before sorting a whole row."""


def truncates(sampling: TokenSampling, vocab_size: int) -> bool:
    """Whether any of the three rules is on."""
    return sampling.min_p > 0 or _ranks(sampling, vocab_size)


def truncate(weights: Tensor, sampling: Sequence[TokenSampling]) -> None:
    """Zero, in place, the `weights` [R, V] float32 of the tokens that the rules of each row drop.

    `weights` are probabilities. Tokens that tie with the k-th best survive top-k. Of tokens that tie at the border of
    top-p the lowest ids survive, as many as it takes to reach p.
    """
    vocab_size = weights.shape[-1]
    limits = _Limits.of(sampling, vocab_size, weights.amax(-1))
    cutoffs = limits.floor.clone()
    ties: list[tuple[int, int]] = []
    pending = [at for at, one in enumerate(sampling) if _ranks(one, vocab_size)]
    for depth in (CANDIDATES, MORE_CANDIDATES, vocab_size):
        if not pending:
            break
        if depth > vocab_size:
            continue
        rows = torch.tensor(pending, device=weights.device)
        some = weights if len(pending) == len(weights) else weights[rows]
        cut = _cut(_best(some, depth), limits.of_rows(rows), vocab_size)
        cutoffs[rows] = cut.weight
        settled, tied = torch.stack((cut.settled, cut.tied)).tolist()
        ties += [(at, kept) for at, done, kept in zip(pending, settled, tied, strict=True) if done and kept]
        pending = [at for at, done in zip(pending, settled, strict=True) if not done]
    border = [(at, (weights[at] == cutoffs[at]).nonzero()[kept:, 0]) for at, kept in ties]
    # Comparing into floats is five times as fast as into booleans, and so is multiplying by them.
    weights *= torch.ge(weights, cutoffs[:, None], out=torch.empty_like(weights))
    for at, dropped in border:
        weights[at, dropped] = 0


def _ranks(sampling: TokenSampling, vocab_size: int) -> bool:
    """Whether a rule that counts from the best token down is on."""
    return 0 < sampling.top_k < vocab_size or sampling.top_p < 1


@dataclass(frozen=True, slots=True)
class _Limits:
    """The rules of R rows as tensors [R]; a rule that is off has a limit that nothing reaches.

    `floor` float32: lowest weight by min-p. `count` int64: k. `share` float64: p.
    """

    floor: Tensor
    count: Tensor
    share: Tensor

    @classmethod
    def of(cls, sampling: Sequence[TokenSampling], vocab_size: int, best: Tensor) -> _Limits:
        """`best` [R]: the highest weights."""
        min_p = [one.min_p for one in sampling]
        count = [min(one.top_k, vocab_size) if one.top_k > 0 else vocab_size for one in sampling]
        share = [one.top_p if one.top_p < 1 else math.inf for one in sampling]
        return cls(
            torch.tensor(min_p, dtype=torch.float32, device=best.device) * best,
            torch.tensor(count, dtype=torch.int64, device=best.device),
            torch.tensor(share, dtype=torch.float64, device=best.device),
        )

    def of_rows(self, rows: Tensor) -> _Limits:
        return _Limits(self.floor[rows], self.count[rows], self.share[rows])


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where R rows are cut, each [R]. `weight` float32: the lowest that survives.

    `tied` int64: of the tokens with just that weight, how many survive; 0 for all. `settled` int64, 0 or 1: whether the
    weights looked at were enough to know.
    """

    weight: Tensor
    tied: Tensor
    settled: Tensor


def _cut(best: Tensor, limits: _Limits, vocab_size: int) -> _Cut:
    """Find the cuts from the D `best` weights [R, D] in descending order."""
    depth = best.shape[-1]
    kth = best.gather(-1, (limits.count[:, None] - 1).clamp(max=depth - 1))[:, 0]
    floor = torch.maximum(limits.floor, torch.where(limits.count <= depth, kth, 0))
    survives = best >= floor[:, None]
    cumulative = torch.where(survives, best, 0).cumsum(-1, dtype=torch.float64)

    # "Closed": all that min-p and top-k let pass is in view. "Open": they let everything pass, which weighs 1.
    closed = (best[:, -1] < floor) | (depth == vocab_size)
    open_ = (limits.floor == 0) & (limits.count == vocab_size)
    wanted = limits.share * torch.where(closed, cumulative[:, -1], 1)
    better = functional.pad(cumulative[:, :-1], (1, 0))
    kept = (survives & (better < wanted[:, None])).sum(-1).clamp(min=1)

    weight = best.gather(-1, kept[:, None] - 1)
    following = best.gather(-1, kept[:, None].clamp(max=depth - 1))
    splits_tie = (following == weight)[:, 0] & (kept < depth)
    tied = torch.where(splits_tie, kept - (best > weight).sum(-1), 0)
    return _Cut(weight[:, 0], tied, (closed | (open_ & (kept < depth))).long())


def _best(weights: Tensor, depth: int) -> Tensor:
    """The `depth` highest weights of each row, in descending order."""
    if depth == CANDIDATES:
        return best_tokens(weights, depth)[0]
    if weights.device.type == "cpu":
        # numpy selects and sorts bare float32 with SIMD, seven times as fast as torch, which carries indices along.
        array = weights.numpy()
        if depth < array.shape[-1]:
            array = np.partition(array, -depth, axis=-1)[:, -depth:]
        return torch.from_numpy(np.sort(array, axis=-1)).flip(-1)
    return weights.topk(depth, dim=-1).values
