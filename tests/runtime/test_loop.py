"""The loop around a loaded engine, with one that is scripted."""

from __future__ import annotations

import pytest
from scripted_child import ScriptedEngine

from headrace.core.request import FinishReason, Request, SequenceOutput, StepOutput, StepStats
from headrace.core.sampling import TokenSampling
from headrace.runtime.loop import Command, run_engine
from headrace.runtime.messages import Abort, Stop, Submit


def submit(name: str, *, tokens: int = 3, n: int = 1, prompt: tuple[int, ...] = (1,)) -> Submit:
    sampling = TokenSampling(temperature=1.0, seed=0, max_tokens=tokens)
    return Submit(Request(request_id=name, prompt_ids=list(prompt), sampling=sampling, n=n))


def run(script: list[list[Command]]) -> tuple[list[StepOutput], list[bool]]:
    """The outputs, and for each batch of commands whether the loop was ready to wait for it."""
    engine, sent, waits = ScriptedEngine(), [], []
    batches = iter(script)

    def receive(wait: bool) -> list[Command]:
        waits.append(wait)
        batch = next(batches)
        assert batch or not wait, "an idle engine waits for commands"
        return batch

    run_engine(engine, receive, sent.append)
    return sent, waits


def of(sent: list[StepOutput], name: str) -> list[SequenceOutput]:
    return [output for step in sent for output in step.sequences if output.request_id == name]


def test_it_steps_while_there_is_work_and_sleeps_when_idle() -> None:
    sent, waits = run([[submit("a")], [submit("b", tokens=1)], [], [submit("c", tokens=1)], [Stop()]])
    assert waits == [True, False, False, True, True]
    assert [output.token_ids for output in of(sent, "a")] == [[0], [1], [2]]
    assert of(sent, "c")[-1].finish_reason is FinishReason.LENGTH
    assert [step.stats.running for step in sent] == [1, 1, 0, 0]


def test_an_abort_that_leaves_nothing_to_do_is_still_reported() -> None:
    sent, waits = run([[submit("a", tokens=100)], [Abort("a", None)], [Abort("unknown", 3)], [Stop()]])
    assert waits == [True, False, True, True]
    assert [step.stats.running for step in sent] == [1, 0, 0]
    assert len(of(sent, "a")) == 1


def test_a_request_that_is_refused_ends_every_choice_and_disturbs_nobody() -> None:
    sent, _ = run([[submit("bad", n=3, prompt=()), submit("good", tokens=1)], [submit("bad2", prompt=())], [Stop()]])
    refused = of(sent, "bad")
    assert [output.choice for output in refused] == [0, 1, 2]
    assert {output.finish_reason for output in refused} == {FinishReason.ERROR}
    assert all("at least 1 token" in output.error for output in refused)
    assert of(sent, "good")[-1].finish_reason is FinishReason.LENGTH
    assert len(of(sent, "bad2")) == 1


def test_stop_ends_at_once() -> None:
    sent, _ = run([[submit("a", tokens=100)], [Stop(), submit("never")]])
    assert len(sent) == 1


def test_an_engine_that_raises_ends_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: ScriptedEngine) -> StepOutput:
        raise RuntimeError("the device has failed")

    monkeypatch.setattr(ScriptedEngine, "step", broken)
    with pytest.raises(RuntimeError, match="device has failed"):
        run([[submit("a")]])


def test_the_stats_between_steps_are_sent_with_a_refusal() -> None:
    sent, _ = run([[submit("bad", prompt=())], [Stop()]])
    assert sent[0].stats == StepStats()
