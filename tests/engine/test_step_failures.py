"""A forward pass that raises ends the sequences it was for, and nobody else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from stepping import greedy, run_all, tokens_of

from headrace.core.request import FinishReason, Request
from headrace.engine import Engine
from headrace.schedule.plan import StepPlan, StepResult

PROMPT = [504, 3575, 282, 4649, 314]


def requests(*names: str) -> list[Request]:
    return [Request(request_id=name, prompt_ids=PROMPT, sampling=greedy(6), cache_salt=name) for name in names]


class Failing:
    """Stands before an engine's runner and raises instead of one of its steps."""

    def __init__(self, engine: Engine, step: int, error: Exception) -> None:
        self._runner = engine._runner
        self._countdown = step
        self._error = error

    def run(self, plan: StepPlan) -> StepResult:
        self._countdown -= 1
        if self._countdown == 0:
            raise self._error
        return self._runner.run(plan)

    def scrub(self, rows: Sequence[object]) -> None:
        self._runner.scrub(rows)


@pytest.mark.parametrize(
    "error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("can't allocate memory"), MemoryError("none")]
)
def test_only_the_sequences_of_the_step_end(
    smollm2_engine: Engine, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    engine = smollm2_engine
    expected = tokens_of(run_all(engine, requests("before"))["before", 0])
    monkeypatch.setattr(engine, "_runner", Failing(engine, 3, error))
    cut = run_all(engine, requests("a", "b"))
    for name in "ab":
        last = cut[name, 0][-1]
        assert last.finish_reason is FinishReason.ERROR
        assert str(error) in last.error
        assert sum(output.finish_reason is not None for output in cut[name, 0]) == 1
    engine._scheduler.check()
    assert engine.stats.kv_usage == 0
    assert tokens_of(run_all(engine, requests("after"))["after", 0]) == expected


def test_a_failed_device_is_not_survived(smollm2_engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = smollm2_engine
    error = torch.AcceleratorError("CUDA error: an illegal memory access was encountered")
    monkeypatch.setattr(engine, "_runner", Failing(engine, 1, error))
    engine.add(requests("a")[0])
    with pytest.raises(torch.AcceleratorError):
        engine.step()
    # The engine is shared with other tests: end what an engine that dies would leave.
    engine._scheduler.fail(engine._scheduler._in_flight.plan, "test")
