"""The same request gives the same tokens however the engine comes to them.

With the native kernels that is so bit for bit: logprobs included. The reference kernels are library code whose sums
depend on the shape of a batch, so there it holds to a tolerance: the logprobs agree within 1e-3, and the tokens are the
same unless a draw falls that close to the border between two, which the long tail of a flat distribution makes likely:
hence the top_k here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from stepping import run_all, tokens_of

from headrace.core.request import Request
from headrace.core.sampling import TokenSampling
from headrace.engine import Engine

PROMPT = [(7 * place) % 40000 + 100 for place in range(150)]


@dataclass(frozen=True)
class Kind:
    """How to compute, and how far logprobs may differ."""

    config: dict[str, Any]
    tolerance: float


KINDS = {
    "native": Kind({"kernels": "native", "dtype": "auto"}, 0.0),
    "native-int8-kv": Kind({"kernels": "native", "dtype": "auto", "kv_cache_dtype": "int8"}, 0.0),
    "native-float32": Kind({"kernels": "native", "dtype": "float32"}, 0.0),
    "reference": Kind({"kernels": "reference", "dtype": "float32"}, 1e-3),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def make(smollm2_path: Path, make_engine: Callable[..., Engine], kind: Kind) -> Callable[..., Engine]:
    if kind.config["kernels"] == "native":
        pytest.importorskip("headrace.kernels.cpu._native")
    return lambda **config: make_engine(smollm2_path, **{"max_model_len": 512, **kind.config, **config})


@pytest.fixture(scope="module")
def engine(make: Callable[..., Engine]) -> Engine:
    return make()


@pytest.fixture(scope="module")
def alone(engine: Engine) -> list:
    return run_all(engine, [sampled("alone", salt="nobody else")])["alone", 0]


def sampled(name: str, *, prompt: list[int] = PROMPT, seed: int = 5, n: int = 1, salt: str | None = None) -> Request:
    sampling = TokenSampling(temperature=0.8, top_k=20, seed=seed, max_tokens=24, ignore_eos=True, logprobs=0)
    return Request(request_id=name, prompt_ids=prompt, sampling=sampling, n=n, cache_salt=salt)


def assert_same(outputs: list, expected: list, kind: Kind) -> None:
    assert tokens_of(outputs) == tokens_of(expected)
    found = [entry.logprob for output in outputs for entry in output.logprobs]
    wanted = [entry.logprob for output in expected for entry in output.logprobs]
    assert found == pytest.approx(wanted, rel=0, abs=kind.tolerance)


def test_in_a_batch(engine: Engine, alone: list, kind: Kind) -> None:
    others = [sampled(f"other{i}", prompt=PROMPT[i:], seed=i) for i in range(1, 8)]
    assert_same(run_all(engine, [*others, sampled("batch", salt="batch")])["batch", 0], alone, kind)


def test_with_a_prefix_cache_hit(engine: Engine, alone: list, kind: Kind) -> None:
    first, second = (run_all(engine, [sampled(name, salt="shared")])[name, 0] for name in ("first", "second"))
    assert first[0].cached_tokens == 0
    assert second[0].cached_tokens == 144  # nine blocks of 16; the last token is always computed
    assert_same(first, alone, kind)
    assert_same(second, alone, kind)


def test_in_chunks(make: Callable[..., Engine], alone: list, kind: Kind) -> None:
    engine = make(max_num_batched_tokens=37)
    assert_same(run_all(engine, [sampled("chunks")])["chunks", 0], alone, kind)


@pytest.mark.parametrize("threads", [1, 3])
def test_with_another_number_of_threads(make: Callable[..., Engine], alone: list, kind: Kind, threads: int) -> None:
    engine = make(threads=threads)
    assert_same(run_all(engine, [sampled("threads")])["threads", 0], alone, kind)


def test_after_preemption(make: Callable[..., Engine], engine: Engine, alone: list, kind: Kind) -> None:
    """Room for one sequence and a half: of two, one is preempted and computed again."""
    block_bytes = engine._runner._kv_cache.memory[0].numel()
    engine = make(max_model_len=256, kv_cache_memory_bytes=20 * block_bytes, enable_prefix_caching=False)
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
    assert_same(outputs["first"], alone, kind)
    assert_same(outputs["second"], alone, kind)


def test_as_one_of_several_choices(engine: Engine, alone: list, kind: Kind) -> None:
    """Choice c of a request with seed s draws as a request with seed s + c does."""
    outputs = run_all(engine, [sampled("choices", seed=4, n=3, salt="choices")])
    assert_same(outputs["choices", 1], alone, kind)
    assert len({tuple(tokens_of(outputs["choices", choice])) for choice in range(3)}) == 3
