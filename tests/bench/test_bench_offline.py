"""The engine measured without a server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from headrace import LLM
from headrace.bench.offline import LatencyReport, ThroughputReport, measure_latency, measure_throughput
from headrace.bench.prompts import Lengths
from headrace.outputs import RequestOutput


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> Iterator[LLM]:
    with LLM(str(smollm2_path), max_model_len=256) as llm:
        yield llm


@pytest.fixture
def answers(llm: LLM, monkeypatch: pytest.MonkeyPatch) -> list[list[RequestOutput]]:
    """What each call of `generate` returned."""
    calls: list[list[RequestOutput]] = []
    generate = llm.generate

    def noted(*arguments: object, **options: object) -> list[RequestOutput]:
        calls.append(generate(*arguments, **options))
        return calls[-1]

    monkeypatch.setattr(llm, "generate", noted)
    return calls


def test_latency(llm: LLM, answers: list[list[RequestOutput]]):
    ended: list[None] = []
    report = measure_latency(
        llm,
        "smol",
        Lengths(prompt_tokens=16, output_tokens=4),
        batch_size=3,
        iterations=2,
        warmup=1,
        on_end=lambda: ended.append(None),
    )
    assert (len(ended), len(answers)) == (3, 3)
    assert all(len(batch) == 3 for batch in answers)
    assert (report.requests, report.iterations, report.batch_size, report.interrupted) == (6, 2, 3, False)
    assert (report.prompt_tokens, report.output_tokens) == (6 * 16, 6 * 4)
    assert report.seconds * 1e3 == pytest.approx(2 * report.latency.mean)
    assert report.output_token_rate == pytest.approx(24 / report.seconds)
    # No prefix cache can have answered.
    assert {output.num_cached_tokens for batch in answers for output in batch} == {0}
    assert msgspec.json.decode(report.json(), type=LatencyReport) == report


def test_throughput(llm: LLM, answers: list[list[RequestOutput]]):
    report = measure_throughput(llm, "smol", Lengths(prompt_tokens=20, output_tokens=4, spread=0.5), requests=10)
    measured = answers[-1]
    assert len(measured) == report.requests == 10
    assert report.prompt_tokens == sum(len(output.prompt_token_ids) for output in measured)
    assert report.output_tokens == sum(len(output.outputs[0].token_ids) for output in measured)
    assert all(10 <= len(output.prompt_token_ids) <= 30 for output in measured)
    assert report.total_token_rate == pytest.approx((report.prompt_tokens + report.output_tokens) / report.seconds)
    assert msgspec.json.decode(report.json(), type=ThroughputReport) == report


def test_an_interruption_leaves_what_was_measured(llm: LLM):
    lengths = Lengths(prompt_tokens=8, output_tokens=2)

    def interrupt_after(batches: int) -> object:
        ended = iter(range(batches))

        def on_end() -> None:
            if next(ended, None) is None:
                raise KeyboardInterrupt

        return measure_latency(llm, "smol", lengths, batch_size=1, iterations=5, warmup=1, on_end=on_end)

    report = interrupt_after(2)
    assert isinstance(report, LatencyReport)
    assert (report.iterations, report.interrupted) == (2, True)
    with pytest.raises(KeyboardInterrupt):
        interrupt_after(0)
