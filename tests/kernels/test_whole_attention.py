"""Attention over whole sequences against the formula, written out."""

from __future__ import annotations

import pytest
import torch

from headrace.kernels import select_ops
from headrace.kernels.ops import WholeAttentionRules

CPU = torch.device("cpu")
HEADS, DIM = 3, 8


def written_out(queries, keys, values, rules):
    """One sequence, [T, heads, D]."""
    positions = torch.arange(len(queries))
    distances = positions - positions[:, None]
    scores = torch.einsum("qhd,khd->hqk", queries, keys) * rules.scale
    if rules.bias is not None:
        scores += rules.bias[:, distances + rules.bias.shape[1] // 2]
    if rules.window is not None:
        scores[:, distances.abs() > rules.window] = -torch.inf
    return torch.einsum("hqk,khd->qhd", scores.softmax(-1), values).flatten(1)


@pytest.mark.parametrize("lengths", [[1], [5, 5, 5], [3, 7, 3, 1], [300, 2]])
@pytest.mark.parametrize("window", [None, 0, 2, 1000])
@pytest.mark.parametrize("biased", [False, True])
def test_every_sequence_sees_itself_alone(lengths, window, biased):
    generator = torch.Generator().manual_seed(0)
    queries, keys, values = torch.randn(3, sum(lengths), HEADS, DIM, generator=generator).unbind(0)
    bias = torch.randn(HEADS, 2 * 300 - 1, generator=generator) if biased else None
    rules = WholeAttentionRules(0.3, window, bias)

    attended = select_ops(CPU).whole_attention(lengths, rules)(queries, keys, values)

    expected = [
        written_out(*parts, rules)
        for parts in zip(queries.split(lengths), keys.split(lengths), values.split(lengths), strict=True)
    ]
    torch.testing.assert_close(attended, torch.cat(expected), atol=1e-5, rtol=1e-5)
