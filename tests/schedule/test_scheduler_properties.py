"""Whatever comes in whatever order, every request gets the tokens it would have got alone, and ends once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from simulation import VOCAB_SIZE, Simulation, request, scheduler

from headrace.core.request import BeamSearch, FinishReason, Request

pytestmark = pytest.mark.timeout(900)  # a failure is worth the minutes that hypothesis takes to make it small

# Beginnings of a few texts that part late, so that prompts share prefixes often and end around the borders of blocks.
TEXTS = [[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13], [0, 1, 2, 3, 4, 5, 6, 6, 6, 6, 6, 6, 6, 6], [5] * 14]
prompts = st.builds(lambda text, length: text[:length], st.sampled_from(TEXTS), st.integers(1, 14))


@st.composite
def rules(draw: st.DrawFn) -> dict:
    max_tokens = draw(st.integers(1, 12))
    return {
        "max_tokens": max_tokens,
        "min_tokens": draw(st.integers(0, max_tokens)),
        "seed": draw(st.integers(0, 2)),
        "eos_token_id": draw(st.none() | st.integers(0, VOCAB_SIZE - 1)),
        "ignore_eos": draw(st.booleans()),
        "stop_token_ids": tuple(draw(st.lists(st.integers(0, VOCAB_SIZE - 1), max_size=2))),
        "repetition_penalty": draw(st.sampled_from([1.0, 1.5])),
        "prompt_logprobs": draw(st.sampled_from([None, None, None, 0])),
    }


@st.composite
def shapes(draw: st.DrawFn) -> dict:
    """Everything tiny, so that everything runs out. The pool holds one longest sequence and perhaps a little more."""
    block_size = draw(st.integers(1, 4))
    max_model_len = draw(st.integers(15, 24))
    return {
        "block_size": block_size,
        "max_model_len": max_model_len,
        "num_blocks": -(-max_model_len // block_size) + draw(st.integers(0, 12)),
        "max_num_seqs": draw(st.integers(1, 6)),
        "max_num_batched_tokens": draw(st.integers(1, 20)),
        "enable_prefix_caching": draw(st.sampled_from([True, True, True, False])),
        "policy": draw(st.sampled_from(["fcfs", "priority"])),
    }


def simulate(shape: dict) -> Simulation:
    return Simulation(
        scheduler(**shape),
        block_size=shape["block_size"],
        max_model_len=shape["max_model_len"],
        budget=shape["max_num_batched_tokens"],
    )


@st.composite
def searches(draw: st.DrawFn) -> BeamSearch:
    return BeamSearch(
        width=draw(st.integers(1, 5)),
        length_penalty=draw(st.sampled_from([1.0, 0.0, -1.0, 3.0])),
        early_stopping=draw(st.sampled_from([None, True, False, "never"])),
        shown=draw(st.booleans()),
    )


@st.composite
def requests(draw: st.DrawFn, request_id: str = "") -> Request:
    beam = draw(st.none() | searches())
    return request(
        request_id,
        draw(prompts),
        sample={**draw(rules()), "logprobs": draw(st.sampled_from([None, 0, 3]))},
        n=draw(st.sampled_from([1, 1, 1, 2, 3, 5])) if beam is None else draw(st.integers(1, beam.width)),
        beam=beam,
        priority=draw(st.integers(-1, 1)),
        arrival_time=draw(st.sampled_from([0.0, 1.0])),
        cache_salt=draw(st.sampled_from([None, None, "a"])),
    )


class Traffic(RuleBasedStateMachine):
    """Requests come, go, fail and are cut off at any moment; `Simulation` checks every single step."""

    @initialize(shape=shapes())
    def start(self, shape: dict) -> None:
        self.simulation = simulate(shape)

    @rule(data=st.data())
    def add(self, data: st.DataObject) -> None:
        self.simulation.add(data.draw(requests(f"r{len(self.simulation.choices)}")))

    @rule(count=st.integers(1, 5))
    def step(self, count: int) -> None:
        for _ in range(count):
            self.simulation.step()

    @precondition(lambda self: self.simulation.scheduler.has_work)
    @rule(data=st.data())
    def abort(self, data: st.DataObject) -> None:
        self._abort(data)

    @precondition(lambda self: self.simulation.scheduler.has_work)
    @rule(data=st.data())
    def abort_while_a_step_is_under_way(self, data: st.DataObject) -> None:
        plan = self.simulation.plan()
        self._abort(data)
        self.simulation.commit(plan)

    @precondition(lambda self: self.simulation.scheduler.has_work)
    @rule(data=st.data())
    def one_row_fails(self, data: st.DataObject) -> None:
        plan = self.simulation.plan()
        row = data.draw(st.sampled_from(plan.rows))
        output = self.simulation.commit(plan, {(row.request_id, row.choice): "not a number"})
        failed = [sequence for sequence in output.sequences if sequence.error is not None]
        if not self.simulation.searches(row.request_id):
            assert (row.request_id, row.choice) in {(sequence.request_id, sequence.choice) for sequence in failed}
        assert {sequence.request_id for sequence in failed} == {row.request_id}

    @precondition(lambda self: self.simulation.scheduler.has_work)
    @rule()
    def a_step_raises(self) -> None:
        plan = self.simulation.plan()
        output = self.simulation.fail(plan, "out of memory")
        rows = {(row.request_id, row.choice) for row in plan.rows}
        ended = {(sequence.request_id, sequence.choice) for sequence in output.sequences}
        assert {(name, number) for name, number in rows if not self.simulation.searches(name)} <= ended
        assert {name for name, _ in rows} == {name for name, _ in ended}
        assert all(sequence.finish_reason is FinishReason.ERROR for sequence in output.sequences)

    @invariant()
    def a_choice_is_alive_until_it_has_ended(self) -> None:
        if hasattr(self, "simulation"):
            open_choices = [choice for choice in self.simulation.choices.values() if choice.end is None]
            assert bool(open_choices) == self.simulation.scheduler.has_work

    def teardown(self) -> None:
        if hasattr(self, "simulation"):
            self.simulation.drain()
            self.simulation.check_answers()

    def _abort(self, data: st.DataObject) -> None:
        living = [key for key, choice in self.simulation.choices.items() if choice.end is None]
        request_id, number = data.draw(st.sampled_from(living))
        if data.draw(st.booleans()):
            (output,) = self.simulation.abort(request_id, number)
            assert output.choice == number
        else:
            outputs = self.simulation.abort(request_id)
            ended = [(output.request_id, output.choice) for output in outputs]
            assert sorted(ended) == [key for key in living if key[0] == request_id]


Traffic.TestCase.settings = settings(max_examples=80, stateful_step_count=25, deadline=None)
TestTraffic = Traffic.TestCase


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(shape=shapes(), arrivals=st.lists(st.tuples(requests(), st.integers(0, 3)), min_size=1, max_size=8))
def test_contention_changes_no_answer(shape: dict, arrivals: list[tuple[Request, int]]) -> None:
    crowded = simulate(shape)
    for number, (wanted, steps) in enumerate(arrivals):
        crowded.add(renamed(wanted, number))
        for _ in range(steps):
            crowded.step()
    crowded.drain()
    crowded.check_answers()
    roomy = simulate({**shape, "num_blocks": 4096, "max_num_seqs": 64, "max_num_batched_tokens": 4096})
    for number, (wanted, _) in enumerate(arrivals):
        roomy.add(renamed(wanted, number))
        roomy.drain()  # alone
    assert sum(step.stats.preemptions for step in roomy.steps) == 0
    for key, choice in crowded.choices.items():
        assert choice.token_ids == roomy.choices[key].token_ids
        assert choice.end.finish_reason == roomy.choices[key].end.finish_reason
    assert crowded.prompt_logprobs == roomy.prompt_logprobs


def renamed(wanted: Request, number: int) -> Request:
    return Request(**{name: getattr(wanted, name) for name in wanted.__slots__} | {"request_id": f"r{number}"})


@pytest.mark.parametrize("policy", ["fcfs", "priority"])
def test_two_that_cannot_both_fit_take_turns_and_end(policy: str) -> None:
    """Each alone needs all 6 blocks in the end: the livelock case."""
    simulation = simulate(
        {
            "num_blocks": 6,
            "block_size": 4,
            "max_num_seqs": 4,
            "max_num_batched_tokens": 8,
            "max_model_len": 24,
            "enable_prefix_caching": True,
            "policy": policy,
        }
    )
    simulation.add(*(request(name, [index] * 5, 40) for index, name in enumerate("abc")))
    simulation.drain()
    simulation.check_answers()
    assert sum(step.stats.preemptions for step in simulation.steps) > 0
