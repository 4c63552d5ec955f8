"""Log-probabilities of the raw distribution: what the model said before any rule, penalty or temperature.

A logprob is `(z - max z) - ln sum exp(z - max z)` in float32, of the token's own logit z, whether the token was chosen
or is listed among the best: equal logits give bit-identical logprobs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headrace.core.request import TokenLogprobs
from headrace.engine.tiles import best_tokens, tiles


def listed_logprobs(logits: Tensor, token_id: int, listed: Sequence[int]) -> TokenLogprobs | None:
    """The logprobs of `token_id` and of the tokens `listed`, in that order.

    `logits` [V] float32 are left as they are. None if they hold NaN or +inf, or nothing but -inf.
    """
    scores = logits[torch.tensor([token_id, *listed], device=logits.device)]
    peak, log_sum = _normalisers(logits[None])
    if not math.isfinite(peak):
        return None
    logprobs = ((scores - peak[0]) - log_sum[0]).tolist()
    ranks = [int((logits > score).sum()) + 1 for score in scores]
    return TokenLogprobs(token_id, logprobs[0], ranks[0], list(listed), logprobs[1:], ranks[1:])


def token_logprobs(logits: Tensor, token_ids: Tensor, counts: Sequence[int]) -> list[TokenLogprobs | None]:
    """The logprobs of `token_ids` [R] int64, and of the `counts[r]` best tokens of each row (-1: of all tokens).

    `logits` [R, V] float32 are left as they are. Equally likely tokens are listed by id. None stands for a row whose
    logits hold NaN or +inf, or nothing but -inf. Needs about as much memory again as the logits take.
    """
    vocab_size = logits.shape[-1]
    wanted = [vocab_size if count < 0 else min(count, vocab_size) for count in counts]
    results: list[TokenLogprobs | None] = [None] * len(wanted)
    for whole in (False, True):
        rows = [at for at, count in enumerate(wanted) if (count == vocab_size) == whole]
        if rows:
            part = slice(None) if len(rows) == len(wanted) else rows
            found = _of_rows(logits[part], token_ids[part], [wanted[at] for at in rows])
            for at, one in zip(rows, found, strict=True):
                results[at] = one
    return results


def _of_rows(logits: Tensor, token_ids: Tensor, counts: list[int]) -> list[TokenLogprobs | None]:
    # One token more than asked for shows whether the last place is shared with a token not listed.
    depth = min(max(counts) + 1, logits.shape[-1])
    peak, log_sum = _normalisers(logits)
    chosen = logits.gather(-1, token_ids[:, None])
    rank = (logits > chosen).sum(-1, keepdim=True) + 1
    best, best_ids = _best(logits, depth)

    # float64 holds every float32 and every id exactly, so that all results cross to the host at once.
    columns = torch.cat(
        [part.double() for part in (peak, log_sum, chosen, rank, token_ids[:, None], best, best_ids)], -1
    )
    host = columns.cpu().numpy()
    scores = host[:, [0, 1, 2, *range(5, 5 + depth)]].astype(np.float32)
    ids = host[:, 5 + depth :].astype(np.int64)
    with np.errstate(invalid="ignore", over="ignore"):
        logprobs = (scores[:, 2:] - scores[:, :1]) - scores[:, 1:2]

    results: list[TokenLogprobs | None] = []
    for at, count in enumerate(counts):
        if not np.isfinite(scores[at, 0]):
            results.append(None)
            continue
        best_of_row = scores[at, 3:]
        top_ids = ids[at, :count]
        if 0 < count < logits.shape[-1] and best_of_row[count - 1] == best_of_row[-1]:
            top_ids = _resolve_tie(logits[at], top_ids, best_of_row[:count])
        results.append(
            TokenLogprobs(
                token_id=int(host[at, 4]),
                logprob=float(logprobs[at, 0]),
                rank=int(host[at, 3]),
                top_ids=top_ids.tolist(),
                top_logprobs=logprobs[at, 1 : 1 + count].tolist(),
            )
        )
    return results


def _normalisers(logits: Tensor) -> tuple[Tensor, Tensor]:
    """The highest logit of each row of `logits` [R, V], and the logarithm of the sum of its weights: float32 [R, 1]."""
    peak = logits.amax(-1, keepdim=True)
    return peak, tiles((logits - peak).exp_(), 0).sum(-1).double().sum(-1, keepdim=True).log().float()


def _best(logits: Tensor, depth: int) -> tuple[Tensor, Tensor]:
    """The `depth` best logits of each row and their ids, in descending order, ties in view by id."""
    if depth == logits.shape[-1]:
        ordered = logits.sort(dim=-1, descending=True, stable=True)
        return ordered.values, ordered.indices
    values, ids = best_tokens(logits, depth)
    ids, by_id = ids.sort(dim=-1)
    values, by_value = values.gather(-1, by_id).sort(dim=-1, descending=True, stable=True)
    return values, ids.gather(-1, by_value)


def _resolve_tie(logits: Tensor, top_ids: NDArray[np.int64], best: NDArray[np.float32]) -> NDArray[np.int64]:
    """The ids to list when the last place is shared with tokens that are out of view: of those, the lowest."""
    better = int((best > best[-1]).sum())
    tied = (logits == float(best[-1])).nonzero()[: len(best) - better, 0]
    return np.concatenate((top_ids[:better], tied.cpu().numpy()))
