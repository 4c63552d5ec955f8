"""What is reported of the raw distribution, for outputs and for prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from sampler_reference import make_row
from torch import Tensor

from headrace.core.errors import EngineError
from headrace.core.request import TokenLogprobs
from headrace.engine.logprobs import listed_logprobs, token_logprobs
from headrace.engine.sampler import Sampler

CPU = torch.device("cpu")


def _random_logits(rows: int, vocab: int, *, grid: float = 0.0) -> Tensor:
    logits = torch.randn(rows, vocab, generator=torch.Generator().manual_seed(11)) * 4
    return (logits / grid).round() * grid if grid else logits


def _expected(logits: Tensor, token: int, count: int) -> TokenLogprobs:
    """By definition, in float64, with a full sort."""
    z = logits.double().numpy()
    logprobs = z - z.max() - np.log(np.exp(z - z.max()).sum())
    order = sorted(range(len(z)), key=lambda i: (-z[i], i))[: len(z) if count < 0 else count]
    rank = 1 + int((z > z[token]).sum())
    return TokenLogprobs(token, logprobs[token], rank, order, logprobs[order].tolist())


@pytest.mark.parametrize("vocab", [7, 300, 1024])
@pytest.mark.parametrize("grid", [0.0, 0.5, 4.0], ids=["distinct", "some ties", "mostly ties"])
def test_values_ranks_and_order(vocab: int, grid: float) -> None:
    logits = _random_logits(24, vocab, grid=grid)
    counts = [0, 1, 5, 20, -1, vocab] * 4
    tokens = torch.arange(24) * 5 % vocab
    for at, found in enumerate(token_logprobs(logits, tokens, counts)):
        wanted = _expected(logits[at], int(tokens[at]), counts[at])
        assert (found.token_id, found.rank, found.top_ids) == (wanted.token_id, wanted.rank, wanted.top_ids)
        assert found.logprob == pytest.approx(wanted.logprob, abs=1e-5)
        assert found.top_logprobs == pytest.approx(wanted.top_logprobs, abs=1e-5)


@pytest.mark.parametrize("grid", [0.0, 4.0])
def test_chosen_and_listed_values_are_bit_identical(grid: float) -> None:
    """Clients judge whether a prompt token was the greedy choice by comparing these for equality."""
    logits = _random_logits(64, 300, grid=grid)
    best = logits.argmax(-1)
    for found in token_logprobs(logits, best, [1] * 64):
        assert found.logprob == found.top_logprobs[0]
        assert (found.rank, found.top_ids) == (1, [found.token_id])
    for found in token_logprobs(logits, torch.arange(64), [-1] * 64):
        assert found.logprob == found.top_logprobs[found.top_ids.index(found.token_id)]


@pytest.mark.parametrize("grid", [0.0, 4.0])
def test_certain_tokens_have_the_values_and_ranks_they_have_among_all(grid: float) -> None:
    logits = _random_logits(1, 300, grid=grid)
    listed = [17, 250, 3, 299]
    found = listed_logprobs(logits[0], 8, listed)
    assert found is not None
    each = [entry for entry in token_logprobs(logits.expand(5, -1), torch.tensor([8, *listed]), [0] * 5) if entry]
    assert (found.token_id, found.logprob, found.rank) == (8, each[0].logprob, each[0].rank)
    assert (found.top_ids, found.top_ranks) == (listed, [entry.rank for entry in each[1:]])
    assert found.top_logprobs == [entry.logprob for entry in each[1:]]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
def test_certain_tokens_of_broken_logits_have_none(broken: float) -> None:
    logits = torch.zeros(300)
    logits[5] = broken
    assert listed_logprobs(logits, 8, [1, 2]) is None


def test_neighbours_change_nothing() -> None:
    logits = _random_logits(12, 1000, grid=2.0)
    counts = [0, 3, 20, -1, 1, 5] * 2
    tokens = torch.arange(12)
    together = token_logprobs(logits, tokens, counts)
    for at, count in enumerate(counts):
        assert token_logprobs(logits[at : at + 1], tokens[at : at + 1], [count]) == [together[at]]


def test_impossible_tokens_have_minus_infinity() -> None:
    logits = torch.tensor([[0.0, -torch.inf, 0.0, -torch.inf]])
    [found] = token_logprobs(logits, torch.tensor([3]), [3])
    assert found.logprob == -math.inf
    assert (found.rank, found.top_ids) == (3, [0, 2, 1])
    assert found.top_logprobs == pytest.approx([math.log(0.5), math.log(0.5), -math.inf])


def test_huge_logits_stay_finite() -> None:
    logits = torch.full((1, 300), 3e38)
    [found] = token_logprobs(logits, torch.tensor([299]), [2])
    assert found.logprob == pytest.approx(-math.log(300), abs=1e-5)
    assert (found.rank, found.top_ids) == (1, [0, 1])


def test_sampled_rows_report_the_distribution_before_rules_and_temperature() -> None:
    logits = _random_logits(3, 300)
    rows = [
        make_row(logprobs=4, temperature=0.2, top_k=2, logit_bias={9: 100.0}),
        make_row(temperature=0.0),
        make_row(logprobs=0, allowed_token_ids=(17,), repetition_penalty=2.0, prompt_ids=[17, 18]),
    ]
    biased, silent, forced = Sampler(300, CPU).sample(logits.clone(), rows)
    assert silent.logprobs is None
    assert (biased.token_id, forced.token_id) == (9, 17)
    assert [biased.logprobs, forced.logprobs] == token_logprobs(logits[[0, 2]], torch.tensor([9, 17]), [4, 0])
    assert biased.logprobs.rank > 1
    assert forced.logprobs.top_ids == []


def test_prompt_logprobs() -> None:
    logits = _random_logits(5, 300)
    before = logits.clone()
    sampler = Sampler(300, CPU)
    following = [3, 299, 0, 150, 7]
    assert sampler.prompt_logprobs(logits, following, 2) == [
        one
        for at, token in enumerate(following)
        for one in token_logprobs(logits[at : at + 1], torch.tensor([token]), [2])
    ]
    assert torch.equal(logits, before)
    whole = sampler.prompt_logprobs(logits, following, -1)
    assert all(sorted(one.top_ids) == list(range(300)) for one in whole)
    assert all(one.top_ids.index(one.token_id) + 1 == one.rank for one in whole)
    assert sampler.prompt_logprobs(logits[:0], [], 2) == []


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_prompt_positions_without_a_distribution_raise(value: float) -> None:
    logits = _random_logits(2, 7)
    logits[1, 3] = value
    with pytest.raises(EngineError, match="prompt position"):
        Sampler(7, CPU).prompt_logprobs(logits, [1, 2], 1)
