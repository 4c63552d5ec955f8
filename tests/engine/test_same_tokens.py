"""The same request gives the same tokens however the engine comes to them.

The reference kernels are library code whose sums depend on the shape of a batch, so this holds to a tolerance: the
logprobs agree within 1e-3. The tokens are then the same unless a draw falls that close to the border between two,
which the long tail of a flat distribution makes likely: hence the top_k here.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from stepping import run_all, tokens_of

from headrace.core.request import Request
from headrace.core.sampling import TokenSampling
from headrace.engine import Engine

TOLERANCE = 1e-3
PROMPT = [(7 * place) % 40000 + 100 for place in range(150)]


def sampled(name: str, *, prompt: list[int] = PROMPT, seed: int = 5, n: int = 1, salt: str | None = None) -> Request:
    sampling = TokenSampling(temperature=0.8, top_k=20, seed=seed, max_tokens=24, ignore_eos=True, logprobs=0)
    return Request(request_id=name, prompt_ids=prompt, sampling=sampling, n=n, cache_salt=salt)


@pytest.fixture(scope="module")
def engine(smollm2_path: Path, make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(smollm2_path, max_model_len=512)


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list:
    return run_all(engine, [sampled("alone", salt="nobody else")])["alone", 0]


def assert_same(outputs: list, expected: list) -> None:
    assert tokens_of(outputs) == tokens_of(expected)
    found = [entry.logprob for output in outputs for entry in output.logprobs]
    wanted = [entry.logprob for output in expected for entry in output.logprobs]
    assert found == pytest.approx(wanted, abs=TOLERANCE)


def test_in_a_batch(engine: Engine, alone: list) -> None:
    others = [sampled(f"other{i}", prompt=PROMPT[i:], seed=i) for i in range(1, 8)]
    assert_same(run_all(engine, [*others, sampled("batch", salt="batch")])["batch", 0], alone)


def test_with_a_prefix_cache_hit(engine: Engine, alone: list) -> None:
    first, second = (run_all(engine, [sampled(name, salt="shared")])[name, 0] for name in ("first", "second"))
    assert first[0].cached_tokens == 0
    assert second[0].cached_tokens == 144  # nine blocks of 16; the last token is always computed
    assert_same(first, alone)
    assert_same(second, alone)


def test_in_chunks(smollm2_path: Path, make_engine: Callable[..., Engine], alone: list) -> None:
    engine = make_engine(smollm2_path, max_model_len=512, max_num_batched_tokens=37)
    assert_same(run_all(engine, [sampled("chunks")])["chunks", 0], alone)


def test_after_preemption(smollm2_path: Path, make_engine: Callable[..., Engine], alone: list) -> None:
    """Room for one sequence and a half: of two, one is preempted and computed again."""
    token_bytes = 2 * 30 * 3 * 64 * 4
    engine = make_engine(
        smollm2_path, max_model_len=256, kv_cache_memory_bytes=320 * token_bytes, enable_prefix_caching=False
    )
    preemptions = 0
    requests = [sampled("first"), sampled("second")]
    outputs: dict[str, list] = {"first": [], "second": []}
    for request in requests:
        engine.add(request)
    while engine.has_work:
        step = engine.step()
        preemptions += step.stats.preemptions
        for output in step.sequences:
            outputs[output.request_id].append(output)
    assert preemptions > 0
    assert_same(outputs["first"], alone)
    assert_same(outputs["second"], alone)


def test_as_one_of_several_choices(engine: Engine, alone: list) -> None:
    """Choice c of a request with seed s draws as a request with seed s + c does."""
    outputs = run_all(engine, [sampled("choices", seed=4, n=3, salt="choices")])
    assert_same(outputs["choices", 1], alone)
    assert len({tuple(tokens_of(outputs["choices", choice])) for choice in range(3)}) == 3
