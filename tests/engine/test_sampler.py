"""The sampler's rules one by one, its edges, and its indifference to neighbours."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from sampler_reference import make_row, native_kernels
from torch import Tensor

from headrace.engine.inverse_cdf import draw
from headrace.engine.sampler import Sampler, token_weights
from headrace.engine.tiles import TILE
from headrace.schedule.plan import PlanRow, RowResult

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]

NATIVE = native_kernels()


@pytest.fixture(params=DEVICES)
def device(request: pytest.FixtureRequest) -> torch.device:
    return torch.device(request.param)


def _sample(logits: list[list[float]] | Tensor, *rows: PlanRow, device: torch.device | str = "cpu") -> list[RowResult]:
    tensor = torch.as_tensor(logits, dtype=torch.float32).clone().to(device)
    if torch.device(device).type != "cpu":
        return Sampler(tensor.shape[-1], torch.device(device)).sample(tensor, rows)
    results = Sampler(tensor.shape[-1], torch.device(device)).sample(tensor.clone(), rows)
    if NATIVE is not None:  # draws in another way, and must choose the same
        assert _comparable(Sampler(tensor.shape[-1], torch.device(device), NATIVE).sample(tensor, rows)) == _comparable(
            results
        )
    return results


def _comparable(results: list[RowResult]) -> list[tuple[int | None, str | None]]:
    return [(result.token_id, result.error) for result in results]


def _greedy(logits: list[float], device: torch.device | str = "cpu", **row: Any) -> int | None:
    return _sample([logits], make_row(temperature=0.0, **row), device=device)[0].token_id


def test_greedy_takes_the_best_and_of_equals_the_lowest_id(device: torch.device) -> None:
    assert _greedy([0, 1, 5, 2, 5, 5, 0], device) == 2
    assert _greedy([-torch.inf, -3, -torch.inf, -3], device) == 1


def test_greedy_ignores_truncation() -> None:
    assert _greedy([1, 3, 2], top_k=1, top_p=0.1, min_p=1.0) == 1


@pytest.mark.parametrize(
    ("rule", "token"),
    [
        ({"allowed_token_ids": (0, 2)}, 2),
        ({"logit_bias": {4: 6.5}}, 4),
        ({"logit_bias": {1: -100.0}}, 3),
        ({"bad_words_ids": ((1,),)}, 3),
        ({"bad_words_ids": ((9, 1),), "output_ids": [9]}, 3),
        ({"bad_words_ids": ((8, 9, 1),), "output_ids": [8, 9]}, 3),
        ({"bad_words_ids": ((8, 9, 1),), "output_ids": [9]}, 1),
        ({"bad_words_ids": ((8, 9, 1),), "output_ids": [9, 8]}, 1),
        ({"bad_words_ids": ((9, 1),), "output_ids": [], "prompt_ids": [9]}, 1),
        ({"min_tokens": 1, "eos_token_id": 1}, 3),
        ({"min_tokens": 1, "eos_token_id": 1, "ignore_eos": True}, 3),
        ({"min_tokens": 1, "eos_token_id": 1, "stop_token_ids": (3,)}, 2),
        ({"min_tokens": 1, "eos_token_id": 1, "output_ids": [5]}, 1),
        ({"repetition_penalty": 1.5, "prompt_ids": [1]}, 3),
        ({"repetition_penalty": 1.5, "output_ids": [1]}, 3),
        ({"frequency_penalty": 0.6, "output_ids": [1]}, 1),
        ({"frequency_penalty": 0.6, "output_ids": [1, 1]}, 3),
        ({"frequency_penalty": 2.0, "prompt_ids": [1]}, 1),
        ({"presence_penalty": 0.6, "output_ids": [1, 1, 1]}, 1),
        ({"presence_penalty": 1.1, "output_ids": [1]}, 3),
        ({"presence_penalty": 2.0, "prompt_ids": [1]}, 1),
    ],
)
def test_each_rule_on_its_own(rule: dict[str, Any], token: int, device: torch.device) -> None:
    assert _greedy([-1, 5, 3, 4, -1, -2, -2, -2, -2, -2], device, **rule) == token


def test_repetition_penalty_lowers_positive_and_negative_logits() -> None:
    assert _greedy([-1.0, -1.2], repetition_penalty=1.5, prompt_ids=[0]) == 1
    assert _greedy([-1.0, -1.2], repetition_penalty=0.5, prompt_ids=[1]) == 1


def test_bias_comes_before_penalties() -> None:
    # 1 + 5 = 6, then 6 / 2 = 3 < 4. The other way round it would be 1 / 2 + 5 = 5.5 > 4.
    assert _greedy([1.0, 4.0], logit_bias={0: 5.0}, repetition_penalty=2.0, prompt_ids=[0]) == 1


def test_bias_cannot_bring_back_a_banned_token() -> None:
    assert _greedy([9.0, 1.0], min_tokens=1, eos_token_id=0, logit_bias={0: 100.0}) == 1


def test_ids_outside_the_vocabulary_touch_no_neighbour() -> None:
    wild = {
        "temperature": 0.0,
        "logit_bias": {7: 100.0, 1_000_000: 1.0, -1: 100.0},
        "bad_words_ids": ((8,), (-7,)),
        "min_tokens": 5,
        "stop_token_ids": (9, 20),
        "repetition_penalty": 5.0,
        "frequency_penalty": 2.0,
        "prompt_ids": [10, 11],
        "output_ids": [12],
    }
    plain = make_row(temperature=0.0, logprobs=7)
    logits = torch.arange(21.0).view(3, 7)
    results = _sample(logits, plain, make_row(**wild), plain)
    assert [result.token_id for result in results] == [6, 6, 6]
    assert results[0] == _sample(logits[:1], plain)[0]
    assert results[2] == _sample(logits[2:], plain)[0]


def test_top_p_keeps_the_fewest_tokens_that_reach_p() -> None:
    def kept(probabilities: list[float], **sampling: Any) -> list[int]:
        weights = token_weights(torch.tensor([probabilities]).log(), [make_row(**sampling).sampling])
        return weights[0].nonzero()[:, 0].tolist()

    assert kept([0.125, 0.5, 0.25, 0.125], top_p=0.5) == [1]
    assert kept([0.125, 0.5, 0.25, 0.125], top_p=0.51) == [1, 2]
    assert kept([0.125, 0.5, 0.25, 0.125], top_p=0.8) == [0, 1, 2]
    assert kept([0.125, 0.5, 0.25, 0.125], top_p=1e-9) == [1]
    assert kept([0.25] * 4, top_p=0.5) == [0, 1]
    assert kept([0.125, 0.5, 0.25, 0.125], top_k=3) == [0, 1, 2, 3]
    assert kept([0.125, 0.5, 0.25, 0.125], top_k=2, top_p=0.6) == [1]
    assert kept([0.125, 0.5, 0.25, 0.125], top_k=2, top_p=0.7) == [1, 2]
    assert kept([0.125, 0.5, 0.25, 0.125], min_p=0.4, top_p=0.7) == [1, 2]
    assert kept([0.125, 0.5, 0.25, 0.125], min_p=0.6, top_p=0.7, top_k=3) == [1]
    assert kept([0.125, 0.5, 0.25, 0.125], min_p=1.0) == [1]


def test_ties_at_the_border_of_top_p_reach_beyond_the_candidates() -> None:
    sampling = make_row(top_p=0.75).sampling
    weights = token_weights(torch.zeros(1, 1000), [sampling])
    assert weights[0].nonzero()[:, 0].tolist() == list(range(750))


def test_low_temperatures_act_as_the_lowest() -> None:
    logits = torch.tensor([[0.0, 0.01, 0.02]])
    lowest, lower = (token_weights(logits.clone(), [make_row(temperature=t).sampling]) for t in (0.01, 0.001))
    assert torch.equal(lowest, lower)
    torch.testing.assert_close(lowest, logits.mul(100).softmax(-1))


@pytest.mark.parametrize("temperature", [0.01, 1.0, 2.0])
def test_extreme_logits(temperature: float, device: torch.device) -> None:
    huge, low = torch.full((3, 300), -3e38), torch.full((300,), -torch.inf)
    huge[0, 137] = 3e38
    huge[1, :] = 3e38
    huge[2] = low
    huge[2, 299] = -3e38
    rows = [make_row(temperature=temperature, seed=seed, logprobs=1) for seed in range(3)]
    first, flat, last = _sample(huge, *rows, device=device)
    assert (first.token_id, last.token_id) == (137, 299)
    assert flat.token_id in range(300)
    assert first.logprobs.logprob == last.logprobs.logprob == 0.0


def test_a_row_without_a_token_fails_alone(device: torch.device) -> None:
    logits = torch.randn(6, 300, generator=torch.Generator().manual_seed(3))
    broken = logits.clone()
    broken[0, 7] = torch.nan
    broken[2, 8] = torch.inf
    broken[3] = -torch.inf
    rows = [
        make_row(top_p=0.5),
        make_row(seed=1, top_k=9, logprobs=2),
        make_row(temperature=0.0),
        make_row(seed=3),
        make_row(bad_words_ids=((2,), (3,)), allowed_token_ids=(2, 3)),
        make_row(temperature=0.0, logprobs=2),
    ]
    results = _sample(broken, *rows, device=device)
    healthy = [1, 5]
    for at, word in {0: "NaN", 2: "infinity", 3: "-inf", 4: "allowed_token_ids"}.items():
        assert results[at].token_id is None
        assert word in results[at].error
    alone = _sample(logits[healthy], *[rows[at] for at in healthy], device=device)
    assert [results[at] for at in healthy] == alone


def test_nan_behind_a_ban_spoils_only_logprobs() -> None:
    logits = torch.zeros(2, 7)
    logits[:, 0] = torch.nan
    without, with_ = _sample(
        logits, make_row(allowed_token_ids=(4,)), make_row(allowed_token_ids=(4,), logprobs=1, temperature=0.0)
    )
    assert without == RowResult(token_id=4)
    assert "logprobs" in with_.error


@pytest.mark.parametrize("vocab", [1, 7, TILE, TILE + 1, 5 * TILE - 1])
def test_every_quantile_hits_its_token(vocab: int, device: torch.device) -> None:
    weights = torch.ones(vocab, vocab, device=device)
    quantiles = (torch.arange(vocab, dtype=torch.float64, device=device) + 0.5) / vocab
    assert draw(weights, quantiles).tolist() == list(range(vocab))


def test_draws_never_land_on_weight_zero() -> None:
    """Not at the very ends of the unit interval either, where rounding could carry a draw past the last weight."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.exp(-40 * torch.rand(4000, 3 * TILE, generator=generator))
    weights *= torch.rand(weights.shape, generator=generator) < 0.02
    weights[:, TILE + 5] += 1e-30
    for quantile in (0.0, 0.5, 1 - 2.0**-53):
        drawn = draw(weights, torch.full((4000,), quantile, dtype=torch.float64))
        assert (weights.gather(-1, drawn[:, None]) > 0).all()


def test_draws_in_a_large_vocabulary_are_exact() -> None:
    """A quantile within a thousandth of a token's end still hits that token, among a quarter of a million."""
    generator = torch.Generator().manual_seed(4)
    weights = 0.5 + torch.rand(1, 262_144, generator=generator)
    cumulative = weights[0].double().cumsum(-1)
    tokens = torch.randint(262_144, (100,), generator=generator)
    quantiles = (cumulative[tokens] - 0.001 * weights[0, tokens]) / cumulative[-1]
    assert torch.equal(draw(weights.expand(100, -1), quantiles), tokens)


@pytest.fixture
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("threads")
@pytest.mark.parametrize("vocab", [49_152, 50_257])
def test_a_row_of_a_real_vocabulary_fares_alike_alone_and_in_a_batch(vocab: int) -> None:
    """Bit for bit, whatever the number of threads: large rows are where libraries split work differently."""
    kinds: list[dict[str, Any]] = [
        {},
        {"temperature": 0.0},
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.4, "top_p": 0.95, "repetition_penalty": 1.2},
        {"top_k": 50},
        {"min_p": 0.01},
        {"top_k": 700, "top_p": 0.999, "frequency_penalty": 0.5},
    ]
    rows = [
        make_row(seed=at, prompt_ids=[1, 2], output_ids=[at, 5], logprobs=at % 4 or None, **kinds[at % len(kinds)])
        for at in range(14)
    ]
    logits = torch.randn(14, vocab, generator=torch.Generator().manual_seed(1)) * 3
    torch.set_num_threads(2)
    together = _sample(logits, *rows)
    torch.set_num_threads(1)
    assert _sample(logits, *rows) == together
    backwards = _sample(logits[9:].flip(0), *reversed(rows[9:]))
    assert list(reversed(backwards)) == together[9:]
    for at, row in enumerate(rows):
        torch.set_num_threads(1 + at % 2)
        assert _sample(logits[at : at + 1], row) == [together[at]]


def test_wrong_logits_are_refused() -> None:
    sampler = Sampler(7, torch.device("cpu"))
    for wrong in (torch.zeros(1, 8), torch.zeros(2, 7), torch.zeros(1, 7, dtype=torch.bfloat16)):
        with pytest.raises(ValueError, match=r"logits must be float32 \[1, 7\]"):
            sampler.sample(wrong, [make_row()])


def test_no_rows_no_results() -> None:
    assert _sample(torch.zeros(0, 7)) == []


def test_logits_may_be_a_slice_of_a_wider_tensor() -> None:
    padded = torch.randn(3, 80, generator=torch.Generator().manual_seed(5))
    rows = [make_row(logit_bias={3: 1.0}, seed=at, logprobs=2) for at in range(3)]
    sampler = Sampler(70, torch.device("cpu"))
    assert sampler.sample(padded[:, :70].clone(), rows) == sampler.sample(padded[:, :70], rows)
