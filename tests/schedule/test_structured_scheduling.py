"""A sequence's grammar state: it has taken exactly the sequence's output, whatever the scheduler has to do."""

from __future__ import annotations

from typing import Any

import pytest
from simulation import Simulation, request, scheduler

from headrace.core.request import FinishReason, Request
from headrace.schedule.plan import StepPlan

NOT_IN_GRAMMAR = -1
"""A token that the state below never ends at, nor refuses."""


class Recorder:
    """A grammar state that allows everything and remembers it. It ends at the token `end`, and is left at `stray`."""

    def __init__(self, *, end: int = NOT_IN_GRAMMAR, stray: int = NOT_IN_GRAMMAR, taken: list[int] | None = None):
        self.end = end
        self.stray = stray
        self.taken = taken or []
        self.ended = False
        self.released = False

    @property
    def problem(self) -> str | None:
        return "that was too much" if self.stray in self.taken else None

    def advance(self, token_id: int) -> bool:
        self.taken.append(token_id)
        self.ended = token_id == self.end
        return token_id != self.stray

    def release(self) -> None:
        assert not self.released, "released twice"
        self.released = True

    def fork(self) -> Recorder:
        return Recorder(end=self.end, stray=self.stray, taken=self.taken.copy())


class GrammarSimulation(Simulation):
    """Every plan is checked to carry the states of the requests that have one, as they are at that token."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.constrained: set[str] = set()
        self.states: set[Recorder] = set()

    def add_with(self, wanted: Request, state: Recorder) -> None:
        self.constrained.add(wanted.request_id)
        admit = self.scheduler.add
        self.scheduler.add = lambda added: admit(added, state)
        try:
            self.add(wanted)
        finally:
            self.scheduler.add = admit

    def drain(self) -> None:
        super().drain()
        assert all(state.released for state in self.states)

    def plan(self) -> StepPlan | None:
        plan = super().plan()
        for row in plan.rows if plan is not None else ():
            assert (row.grammar is not None) == (row.samples and row.request_id in self.constrained)
            if row.grammar is not None:
                self.states.add(row.grammar)
                heard = self.choices[row.request_id, row.choice].token_ids
                assert row.grammar.taken == heard
        return plan


def test_choices_have_states_of_their_own() -> None:
    simulation = GrammarSimulation(scheduler())
    simulation.add_with(request("a", 9, 12, n=4), Recorder())
    simulation.drain()
    simulation.check_answers()
    states = {id(row.grammar) for plan in simulation.plans for row in plan.rows if row.grammar is not None}
    assert len(states) == 4


@pytest.mark.parametrize("num_blocks", [16, 17, 20])
def test_preempted_sequences_go_on_where_they_were(num_blocks: int) -> None:
    simulation = GrammarSimulation(scheduler(num_blocks=num_blocks, max_num_seqs=6))
    for number in range(5):
        simulation.add_with(request(str(number), 7 + number, 40, n=2), Recorder())
    simulation.drain()
    assert sum(step.stats.preemptions for step in simulation.steps) > 0
    simulation.check_answers()


def test_a_chunked_prompt_has_its_state_in_the_last_chunk_only() -> None:
    simulation = GrammarSimulation(scheduler(max_num_batched_tokens=4, max_num_seqs=4), budget=4)
    simulation.add_with(request("a", 19, 3), Recorder())
    simulation.drain()
    assert [row.samples for plan in simulation.plans for row in plan.rows][:5] == [False] * 4 + [True]
    simulation.check_answers()


def test_the_leader_may_be_aborted_before_its_choices_are_forked() -> None:
    simulation = GrammarSimulation(scheduler(max_num_batched_tokens=4, max_num_seqs=4), budget=4)
    simulation.add_with(request("a", 11, 5, n=3), Recorder())
    simulation.step()
    simulation.abort("a", 0)
    simulation.drain()
    simulation.check_answers()


def test_tokens_that_follow_a_grammar_are_counted() -> None:
    simulation = GrammarSimulation(scheduler())
    simulation.add_with(request("a", 4, 3, n=2), Recorder())
    simulation.add(request("b", 4, 3))
    simulation.drain()
    assert sum(step.stats.masked_tokens for step in simulation.steps) == 6
    assert sum(step.stats.generation_tokens for step in simulation.steps) == 9


def first_token(**sample: object) -> int:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 5, 1, sample=sample))
    simulation.drain()
    (token,) = simulation.choices["a", 0].token_ids
    return token


@pytest.mark.parametrize(
    "sample",
    [
        {"eos_token_id": 3, "ignore_eos": True},
        {"eos_token_id": 3, "ignore_eos": True, "min_tokens": 5},
        {"eos_token_id": None},
        {"min_tokens": 5},
    ],
)
def test_a_complete_answer_ends_whatever_else_is_asked_for(sample: dict) -> None:
    token = first_token(**sample)
    if sample.get("eos_token_id") is not None:
        sample = {**sample, "eos_token_id": token}
    simulation = GrammarSimulation(scheduler())
    simulation.add_with(request("a", 5, 30, sample=sample), Recorder(end=token))
    simulation.step()
    end = simulation.choices["a", 0].end
    assert end is not None
    assert (end.token_ids, end.finish_reason, end.stop_reason) == ([token], FinishReason.STOP, None)
    assert not simulation.scheduler.has_work


def test_a_stop_token_of_the_request_is_told_as_such() -> None:
    token = first_token()
    simulation = GrammarSimulation(scheduler())
    simulation.add_with(request("a", 5, 30, sample={"stop_token_ids": (token,)}), Recorder(end=token))
    simulation.step()
    end = simulation.choices["a", 0].end
    assert end is not None
    assert (end.finish_reason, end.stop_reason) == (FinishReason.STOP, token)


def test_an_answer_that_leaves_its_grammar_fails_alone() -> None:
    token = first_token()
    simulation = GrammarSimulation(scheduler())
    simulation.add_with(request("a", 5, 30), Recorder(stray=token))
    simulation.add(request("b", 6, 4))
    simulation.drain()
    end = simulation.choices["a", 0].end
    assert end is not None
    assert end.finish_reason is FinishReason.ERROR
    assert "that was too much" in (end.error or "")
    assert simulation.choices["b", 0].end.finish_reason is FinishReason.LENGTH
