"""20,000 draws against the exact distribution, and the weights drawn from against a slow reference."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sampler_reference import SLACK, distribution, make_row, native_kernels, ruled_logits, survivors
from scipy import stats

from headrace.engine.logits_rules import apply_rules
from headrace.engine.randomness import uniforms
from headrace.engine.sampler import Sampler, token_weights
from headrace.engine.tiles import TILE
from headrace.kernels.native import NativeKernels
from headrace.schedule.plan import PlanRow

CPU = torch.device("cpu")
DRAWS = 20_000
VOCAB = 2 * TILE + 44


def _draws(logits: np.ndarray, native: NativeKernels | None = None, **row: Any) -> np.ndarray:
    """Draws at 200 seeds, 4 choices and 25 positions of the same logits."""
    rows = [
        make_row(seed=1000 + 10 * (at // 100), choice=at % 4, output_index=at // 4 % 25, **row) for at in range(DRAWS)
    ]
    repeated = torch.from_numpy(logits).expand(DRAWS, -1).clone()
    results = Sampler(len(logits), CPU, native).sample(repeated, rows)
    return np.array([result.token_id for result in results])


HISTORY = {"prompt_ids": [0, 1, 2, 3], "output_ids": [2, 3, 3, 4, 290, 290, 290]}


@pytest.mark.parametrize(
    "parameters",
    [
        pytest.param({}, id="plain"),
        pytest.param({"temperature": 0.6}, id="cold"),
        pytest.param({"temperature": 1.7}, id="hot"),
        pytest.param({"top_k": 10}, id="top_k"),
        pytest.param({"top_k": 150}, id="top_k beyond the candidates"),
        pytest.param({"top_p": 0.8}, id="top_p"),
        pytest.param({"top_p": 0.95, "temperature": 1.9}, id="top_p beyond the candidates"),
        pytest.param({"min_p": 0.1}, id="min_p"),
        pytest.param({"top_k": 40, "top_p": 0.7, "min_p": 0.02, "temperature": 0.9}, id="all three"),
        pytest.param({"repetition_penalty": 1.3} | HISTORY, id="repetition_penalty"),
        pytest.param({"frequency_penalty": 0.7} | HISTORY, id="frequency_penalty"),
        pytest.param({"presence_penalty": 1.5} | HISTORY, id="presence_penalty"),
        pytest.param({"presence_penalty": -1.0, "frequency_penalty": 0.2, "top_p": 0.9} | HISTORY, id="mixed"),
        pytest.param({"logit_bias": {0: 3.0, 299: 2.5, 1: -100.0}}, id="logit_bias"),
        pytest.param({"allowed_token_ids": (3, 127, 128, 255, 256, 299)}, id="allowed_token_ids"),
    ],
)
@pytest.mark.parametrize("native", [False, True], ids=["torch", "native"])
def test_draws_follow_the_exact_distribution(parameters: dict[str, Any], native: bool) -> None:
    kernels = native_kernels() if native else None
    if native and kernels is None:
        pytest.skip("built without the native library")
    logits = np.random.default_rng(7).normal(0, 1.5, VOCAB).astype(np.float32)
    logits[[2, 3, 4, 290]] += 3
    row = make_row(**parameters)
    z = ruled_logits(logits, row)
    expected = distribution(z, row.sampling, survivors(z, row.sampling, 0)) * DRAWS
    observed = np.bincount(_draws(logits, kernels, **parameters), minlength=VOCAB)

    assert observed[expected == 0].sum() == 0
    rare = expected < 5
    cells = np.append(observed[~rare], observed[rare].sum()), np.append(expected[~rare], expected[rare].sum())
    cells = tuple(cell[cells[1] > 0] for cell in cells)
    assert stats.chisquare(*cells).pvalue > 0.01


def test_a_seed_repeats_and_choices_differ() -> None:
    logits = torch.zeros(4, 50_000)
    rows = [make_row(seed=5), make_row(seed=5), make_row(seed=5, choice=1), make_row(seed=6)]
    first, again, choice_1, next_seed = Sampler(50_000, CPU).sample(logits, rows)
    assert first == again != choice_1
    assert choice_1 == next_seed


tokens_of = {vocab: st.integers(0, vocab - 1) for vocab in (7, TILE, VOCAB)}


@st.composite
def _rows(draw: st.DrawFn, vocab: int) -> PlanRow:
    token = tokens_of[vocab]

    def sometimes(values: st.SearchStrategy, otherwise: Any) -> Any:
        return draw(st.one_of(st.just(otherwise), values))

    return make_row(
        prompt_ids=draw(st.lists(token, min_size=1, max_size=6)),
        output_ids=draw(st.lists(token, max_size=6)),
        seed=draw(st.integers(-(2**63), 2**63 - 1)),
        choice=draw(st.integers(0, 3)),
        temperature=sometimes(st.sampled_from([1e-4, 0.01, 0.3, 0.7, 1.3, 2.0]), 1.0),
        min_p=sometimes(st.sampled_from([1e-6, 0.05, 0.3, 1.0]), 0.0),
        top_k=sometimes(st.integers(1, vocab + 1), 0),
        top_p=sometimes(st.sampled_from([1e-6, 0.1, 0.5, 0.9, 0.999]), 1.0),
        min_tokens=sometimes(st.integers(0, 8), 0),
        eos_token_id=draw(token),
        stop_token_ids=tuple(sometimes(st.lists(token, max_size=2), [])),
        logit_bias=sometimes(st.dictionaries(token, st.sampled_from([-100.0, -1.5, 2.25, 100.0]), max_size=3), {}),
        repetition_penalty=sometimes(st.sampled_from([0.5, 1.25, 2.0]), 1.0),
        frequency_penalty=sometimes(st.sampled_from([-0.5, 0.25, 2.0]), 0.0),
        presence_penalty=sometimes(st.sampled_from([-2.0, 0.75]), 0.0),
        allowed_token_ids=sometimes(st.lists(token, min_size=4, max_size=40).map(tuple), None),
        bad_words_ids=tuple(sometimes(st.lists(st.lists(token, min_size=1, max_size=3).map(tuple), max_size=2), [])),
    )


@st.composite
def _batches(draw: st.DrawFn) -> tuple[np.ndarray, list[PlanRow]]:
    """Rows of mixed parameters; logits on a coarse grid, so that there are ties, with some at -inf."""
    vocab = draw(st.sampled_from(list(tokens_of)))
    rows = draw(st.lists(_rows(vocab), min_size=1, max_size=6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    logits = rng.integers(-40, 40, (len(rows), vocab)) * draw(st.sampled_from([0.0, 0.03125, 0.125, 1.0]))
    logits[rng.random(logits.shape) < draw(st.sampled_from([0.0, 0.1]))] = -np.inf
    return logits.astype(np.float32), rows


@settings(max_examples=150, deadline=None)
@given(_batches())
def test_weights_and_draws_are_those_of_the_contract(batch: tuple[np.ndarray, list[PlanRow]]) -> None:
    logits, rows = batch
    ruled = torch.from_numpy(logits.copy())
    apply_rules(ruled, rows)
    weights = token_weights(ruled.clone(), [row.sampling for row in rows]).double().numpy()
    results = Sampler(logits.shape[1], CPU).sample(torch.from_numpy(logits.copy()), rows)
    for at, row in enumerate(rows):
        z = ruled_logits(logits[at], row)
        np.testing.assert_array_equal(ruled[at].numpy(), z)
        if not np.isfinite(z.max()):
            assert results[at].error is not None
            continue
        drawn_from = weights[at] > 0
        representable = distribution(z, row.sampling, np.isfinite(z)) > 1e-30
        assert not (survivors(z, row.sampling, -SLACK) & representable & ~drawn_from).any()
        assert not (drawn_from & ~survivors(z, row.sampling, SLACK)).any()

        expected = distribution(z, row.sampling, drawn_from)
        np.testing.assert_allclose(weights[at] / weights[at].sum(), expected, rtol=1e-4, atol=1e-12)
        quantile = uniforms([row.sampling.seed + row.choice], [row.output_index])[0]
        token = results[at].token_id
        assert drawn_from[token]
        assert expected[:token].sum() - 1e-6 <= quantile <= expected[: token + 1].sum() + 1e-6


@settings(max_examples=60, deadline=None)
@given(_batches(), st.lists(st.sampled_from([None, 0, 1, 5, -1]), min_size=6, max_size=6))
def test_a_row_fares_alike_alone_and_in_any_batch(
    batch: tuple[np.ndarray, list[PlanRow]], logprobs: list[int | None]
) -> None:
    logits, rows = batch
    rows = [replace(row, sampling=replace(row.sampling, logprobs=n)) for row, n in zip(rows, logprobs, strict=False)]
    sampler = Sampler(logits.shape[1], CPU)
    together = sampler.sample(torch.from_numpy(logits.copy()), rows)
    for at, row in enumerate(rows):
        assert sampler.sample(torch.from_numpy(logits[at : at + 1].copy()), [row]) == [together[at]]
