"""Loaded engines that share a thread, scripted: what they take in, who steps, what is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import pairwise

import pytest
from scripted_child import ScriptedEngine, ScriptedPooler

from headrace.core.pooling import PoolingParams, PoolingRequest, PoolingTask
from headrace.core.request import FinishReason, Request, SequenceOutput, StepOutput, StepStats
from headrace.core.sampling import TokenSampling
from headrace.runtime.messages import Abort, Submit, SubmitPooling
from headrace.runtime.turns import EngineTurns


def submit(name: str, *, engine: int = 0, tokens: int = 3, n: int = 1, prompt: tuple[int, ...] = (1,)) -> Submit:
    sampling = TokenSampling(temperature=1.0, seed=0, max_tokens=tokens)
    return Submit(engine, Request(request_id=name, prompt_ids=list(prompt), sampling=sampling, n=n))


def embed(name: str, *, engine: int = 1, prompt: tuple[int, ...] = (1, 2)) -> SubmitPooling:
    params = PoolingParams(task=PoolingTask.EMBED)
    return SubmitPooling(engine, PoolingRequest(request_id=name, prompt_ids=list(prompt), params=params))


class Bench:
    """Engine 0 generates, engine 1 pools; `sent` is what they told."""

    def __init__(self) -> None:
        self.sent: list[tuple[int, StepOutput]] = []
        self.turns = EngineTurns(lambda number, output: self.sent.append((number, output)))
        self.turns.add(0, ScriptedEngine())
        self.turns.add(1, ScriptedPooler())

    def round(self, *commands: Submit | SubmitPooling | Abort) -> list[tuple[int, StepOutput]]:
        """What is told when these commands have come and whoever has the turn has stepped."""
        before = len(self.sent)
        for command in commands:
            self.turns.take(command)
        self.turns.step()
        return self.sent[before:]

    def finish(self) -> None:
        while self.turns.has_work:
            self.turns.step()

    def of(self, name: str) -> list[SequenceOutput]:
        return [output for _, step in self.sent for output in step.sequences if output.request_id == name]


@pytest.fixture
def bench() -> Bench:
    return Bench()


def test_it_steps_while_there_is_work(bench: Bench) -> None:
    assert not bench.turns.has_work
    bench.round(submit("a"))
    bench.round(submit("b", tokens=1))
    assert bench.turns.has_work
    bench.finish()
    assert [output.token_ids for output in bench.of("a")] == [[0], [1], [2]]
    assert bench.of("b")[-1].finish_reason is FinishReason.LENGTH
    assert [(number, step.stats.running) for number, step in bench.sent] == [(0, 1), (0, 1), (0, 0)]
    assert bench.round() == []


def test_an_abort_that_leaves_nothing_to_do_is_still_reported(bench: Bench) -> None:
    bench.round(submit("a", tokens=100))
    assert bench.round(Abort(0, "a", None)) == [(0, StepOutput([], StepStats()))]
    assert bench.round(Abort(0, "unknown", 3)) == [(0, StepOutput([], StepStats()))]
    assert bench.round(Abort(7, "of an engine that is gone", None)) == []


def test_a_request_that_is_refused_ends_every_choice_and_disturbs_nobody(bench: Bench) -> None:
    bench.round(submit("bad", n=3, prompt=()), submit("good", tokens=1), embed("e-bad", prompt=()), embed("e-good"))
    bench.finish()
    refused = bench.of("bad")
    assert [output.choice for output in refused] == [0, 1, 2]
    assert {output.finish_reason for output in refused} == {FinishReason.ERROR}
    assert all("at least 1 token" in output.error for output in refused)
    assert bench.of("good")[-1].finish_reason is FinishReason.LENGTH
    pooled = {each.request_id: each for _, step in bench.sent for each in step.pooled}
    assert "at least 1 token" in pooled["e-bad"].error
    assert (pooled["e-good"].error, pooled["e-good"].shape) == (None, [2])


def test_an_engine_that_raises_ends_the_loop(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ScriptedEngine) -> StepOutput:
        raise RuntimeError("the device has failed")

    monkeypatch.setattr(ScriptedEngine, "step", broken)
    with pytest.raises(RuntimeError, match="device has failed"):
        bench.round(submit("a"))


def test_an_engine_that_was_removed_hears_nothing_more(bench: Bench) -> None:
    bench.round(submit("a", tokens=100))
    bench.turns.remove(0)
    assert not bench.turns.has_work
    assert bench.round(submit("b")) == []


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock that steps are timed with."""
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def advance(seconds: float) -> None:
        now[0] += seconds

    return advance


def test_engines_share_the_time_not_the_steps(bench: Bench, clock: Callable[[float], None], monkeypatch) -> None:
    """A step of the one takes ten times as long as a step of the other."""
    for kind, seconds in ((ScriptedEngine, 0.01), (ScriptedPooler, 0.1)):
        step = kind.step
        monkeypatch.setattr(kind, "step", lambda self, step=step, seconds=seconds: (clock(seconds), step(self))[1])
    bench.round(submit("a", tokens=1000), *(embed(f"e{number}") for number in range(100)))
    while len(bench.sent) < 110:
        bench.turns.step()
    steps = [number for number, _ in bench.sent]
    assert 9 <= steps.count(1) <= 11
    gaps = [place for place, number in enumerate(steps) if number == 1]
    assert max(after - before for before, after in pairwise(gaps)) <= 12


def test_time_without_work_is_not_made_up_for(bench: Bench, clock: Callable[[float], None], monkeypatch) -> None:
    step = ScriptedEngine.step
    monkeypatch.setattr(ScriptedEngine, "step", lambda self: (clock(0.01), step(self))[1])
    step_pooler = ScriptedPooler.step
    monkeypatch.setattr(ScriptedPooler, "step", lambda self: (clock(0.01), step_pooler(self))[1])
    bench.round(submit("a", tokens=1000))
    for _ in range(100):
        bench.turns.step()
    bench.sent.clear()
    bench.round(*(embed(f"e{number}") for number in range(50)))
    for _ in range(19):
        bench.turns.step()
    assert [number for number, _ in bench.sent].count(0) >= 9
