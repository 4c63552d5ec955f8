"""From hidden states to vectors and scores."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.config.pooler import PoolerConfig
from headrace.core.pooling import PoolingInfo, PoolingMode, PoolingParams, PoolingRequest
from headrace.models.functions import Function, apply
from headrace.models.head import Head
from headrace.schedule.pooling import PooledRow

NOT_FINITE = "The model's numbers for this input are not finite (NaN or infinity)."


class Readout:
    """What a model makes of its hidden states, all in float32.

    The vector of a sequence are its pooled hidden states by each of `modes`, side by side, put through the `head`;
    that of a token is its hidden state, put through the same. Scores go through `activation`.
    """

    def __init__(
        self, head: Head, info: PoolingInfo, given: PoolerConfig, *, modes: Sequence[PoolingMode], activation: Function
    ) -> None:
        self._head = head
        self._use_activation = info.use_activation
        self._given = given
        self._modes = modes
        self._activation = activation

    @torch.inference_mode()
    def pool(self, hidden: Tensor, requests: Sequence[PoolingRequest]) -> list[PooledRow]:
        """A row for each request, from the hidden states of their tokens end to end, float32 [T, hidden]."""
        states = hidden.split([len(request.prompt_ids) for request in requests])
        rows: list[PooledRow] = [PooledRow([], b"")] * len(requests)
        by_params: dict[PoolingParams, list[int]] = {}
        for index, request in enumerate(requests):
            by_params.setdefault(request.params, []).append(index)
        for params, indices in by_params.items():
            for index, values in zip(indices, self._values([states[index] for index in indices], params), strict=True):
                rows[index] = _row(values)
        return rows

    def _values(self, states: list[Tensor], params: PoolingParams) -> list[np.ndarray]:
        """What each sequence's hidden states come to: [size], or [tokens, size]."""
        if params.task.per_token:
            values = self._finish(torch.cat(states), params)
            return [part.numpy() for part in values.cpu().split([len(part) for part in states])]
        pooled = [torch.stack([pool(mode, part) for part in states]) for mode in self._modes]
        return list(self._finish(torch.cat(pooled, dim=1), params).cpu().numpy())

    def _finish(self, x: Tensor, params: PoolingParams) -> Tensor:
        x = _spoil(self._head(_spoil(x)))
        activates = self._use_activation if params.use_activation is None else params.use_activation
        if params.task.embeds:
            x = x[:, : params.dimensions or self._given.dimensions]
            return F.normalize(x, dim=-1) if activates else x
        x = (x - (self._given.logit_mean or 0.0)) / (self._given.logit_sigma or 1.0)
        return apply(self._activation, x) if activates else x


def pool(mode: PoolingMode, states: Tensor) -> Tensor:
    """One vector [hidden] of the hidden states of a sequence, [tokens, hidden]."""
    match mode:
        case PoolingMode.CLS:
            return states[0]
        case PoolingMode.LAST:
            return states[-1]
        case PoolingMode.MEAN:
            return states.mean(0)
        case PoolingMode.MAX:
            return states.amax(0)
        case PoolingMode.MEAN_SQRT_LEN:
            return states.sum(0) / len(states) ** 0.5
        case PoolingMode.WEIGHTED_MEAN:
            weights = torch.arange(1, len(states) + 1, device=states.device, dtype=states.dtype)
            return weights @ states / weights.sum()


def _spoil(x: Tensor) -> Tensor:
    """Make NaN of what is infinite: a NaN passes through everything, an infinity can come out as an honest 1."""
    return torch.where(x.isfinite(), x, torch.nan)


def _row(values: np.ndarray) -> PooledRow:
    if not np.isfinite(values).all():
        return PooledRow([], b"", NOT_FINITE)
    return PooledRow(list(values.shape), values.astype("<f4", copy=False).tobytes())
