"""min-p, top-k and top-p: which tokens a draw may choose from (contract 3.2, steps 12 to 14).

All three keep the best tokens down to some score, so together they are one cutoff per row. It is found without sorting
the vocabulary: mostly the `CANDIDATES` best scores hold all that survives. Rows for which they do not are sorted whole.
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
from headrace.engine.inverse_cdf import tile_sums

CANDIDATES = 64
"""Best scores to look at before sorting a whole row."""


def truncates(sampling: TokenSampling, vocab_size: int) -> bool:
    """Whether any of the three rules is on."""
    return sampling.min_p > 0 or _ranks(sampling, vocab_size)


def truncate(weights: Tensor, scores: Tensor, sampling: Sequence[TokenSampling]) -> None:
    """Zero, in place, the `weights` of the tokens that the rules of each row drop.

    `scores` [R, V] float32 are logits over temperature, shifted so that the best of each row is 0, and `weights` are
    their exponentials. Tokens that tie with the k-th best survive top-k. Of tokens that tie at the border of top-p the
    lowest ids survive, as many as it takes to reach p.
    """
    vocab_size = scores.shape[-1]
    limits = _Limits.of(sampling, vocab_size, scores.device)
    cutoffs = limits.floor.clone()
    ties: list[tuple[int, int]] = []
    pending = [at for at, one in enumerate(sampling) if _ranks(one, vocab_size)]
    for depth in (min(CANDIDATES, vocab_size), vocab_size):
        if not pending:
            break
        rows = torch.tensor(pending, device=scores.device)
        cut = _cut(_best(scores[rows], depth), limits.of_rows(rows), tile_sums(weights[rows]).sum(-1), vocab_size)
        cutoffs[rows] = cut.score
        settled, tied = torch.stack((cut.settled, cut.tied)).tolist()
        ties += [(at, kept) for at, done, kept in zip(pending, settled, tied, strict=True) if done and kept]
        pending = [at for at, done in zip(pending, settled, strict=True) if not done]
    weights.mul_(scores >= cutoffs[:, None])
    for at, kept in ties:
        weights[at, (scores[at] == cutoffs[at]).nonzero()[kept:, 0]] = 0


def _ranks(sampling: TokenSampling, vocab_size: int) -> bool:
    """Whether a rule that counts from the best token down is on."""
    return 0 < sampling.top_k < vocab_size or sampling.top_p < 1


@dataclass(frozen=True, slots=True)
class _Limits:
    """The rules of R rows as tensors [R]; a rule that is off has a limit that nothing reaches.

    `floor` float32: lowest score by min-p. `count` int64: k. `share` float64: p.
    """

    floor: Tensor
    count: Tensor
    share: Tensor

    @classmethod
    def of(cls, sampling: Sequence[TokenSampling], vocab_size: int, device: torch.device) -> _Limits:
        # P[i] < m * max P is the same as score < ln m, since the best score is 0.
        floor = [math.log(one.min_p) if one.min_p > 0 else -math.inf for one in sampling]
        count = [min(one.top_k, vocab_size) if one.top_k > 0 else vocab_size for one in sampling]
        share = [one.top_p if one.top_p < 1 else math.inf for one in sampling]
        return cls(
            torch.tensor(floor, dtype=torch.float32, device=device),
            torch.tensor(count, dtype=torch.int64, device=device),
            torch.tensor(share, dtype=torch.float64, device=device),
        )

    def of_rows(self, rows: Tensor) -> _Limits:
        return _Limits(self.floor[rows], self.count[rows], self.share[rows])


@dataclass(frozen=True, slots=True)
class _Cut:
    """Where R rows are cut, each [R]. `score` float32: the lowest that survives.

    `tied` int64: of the tokens with just that score, how many survive; 0 for all. `settled` int64, 0 or 1: whether the
    scores looked at were enough to know.
    """

    score: Tensor
    tied: Tensor
    settled: Tensor


def _cut(best: Tensor, limits: _Limits, mass: Tensor, vocab_size: int) -> _Cut:
    """Find the cuts from the D `best` scores [R, D] in descending order. `mass` [R] float64: sum of all weights."""
    depth = best.shape[-1]
    kth = best.gather(-1, (limits.count[:, None] - 1).clamp(max=depth - 1))[:, 0]
    floor = torch.maximum(limits.floor, torch.where(limits.count <= depth, kth, -torch.inf))
    survives = best >= floor[:, None]
    cumulative = torch.where(survives, best.exp(), 0).double().cumsum(-1)

    # "Closed": all that min-p and top-k let pass is in view. "Open": they let everything pass.
    closed = (best[:, -1] < floor) | (depth == vocab_size)
    open_ = (limits.floor == -torch.inf) & (limits.count == vocab_size)
    wanted = limits.share * torch.where(closed, cumulative[:, -1], mass)
    better = functional.pad(cumulative[:, :-1], (1, 0))
    kept = (survives & (better < wanted[:, None])).sum(-1).clamp(min=1)

    score = best.gather(-1, kept[:, None] - 1)
    following = best.gather(-1, kept[:, None].clamp(max=depth - 1))
    splits_tie = (following == score)[:, 0] & (kept < depth)
    tied = torch.where(splits_tie, kept - (best > score).sum(-1), 0)
    return _Cut(score[:, 0], tied, (closed | (open_ & (kept < depth))).long())


def _best(scores: Tensor, depth: int) -> Tensor:
    """The `depth` highest scores of each row, in descending order."""
    if depth < scores.shape[-1]:
        return scores.topk(depth, dim=-1).values
    if scores.device.type == "cpu":
        # numpy sorts bare float32 with SIMD, seven times as fast as torch, which carries the indices along.
        return torch.from_numpy(np.sort(scores.numpy(), axis=-1)).flip(-1)
    return scores.sort(dim=-1, descending=True).values
