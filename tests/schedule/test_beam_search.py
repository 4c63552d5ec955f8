"""Beam searches in the scheduler: what they find, what they share, and what becomes of them under pressure."""

from __future__ import annotations

import itertools
import math

import pytest
from simulation import Simulation, beam_request, distribution, request, scheduler

from headrace.core.errors import BadRequest
from headrace.core.request import BeamSearch, FinishReason, TokenLogprobs
from headrace.schedule.beam_search import continuations, is_decided, score
from headrace.schedule.plan import RowResult, StepResult


def simulate(**shape) -> Simulation:
    limits = {"max_model_len": "max_model_len", "max_num_batched_tokens": "budget"}
    known = {name: shape[key] for key, name in limits.items() if key in shape}
    return Simulation(scheduler(**shape), **known)


def drained(*requests, **shape) -> Simulation:
    simulation = simulate(**shape)
    simulation.add(*requests)
    simulation.drain()
    simulation.check_answers()
    return simulation


# ---- the policy


def candidates(**logprobs: float) -> TokenLogprobs:
    ids = [int(name.removeprefix("t")) for name in logprobs]
    return TokenLogprobs(ids[0], logprobs[f"t{ids[0]}"], 1, ids, list(logprobs.values()))


def test_continuations_come_from_all_beams_and_the_best_go_on() -> None:
    going_on, finishing = continuations(
        BeamSearch(width=2), [-1.0, -2.0], [candidates(t5=-0.5, t6=-3.0), candidates(t7=-0.1, t5=-0.2)], None
    )
    assert [(one.beam, one.place, one.token_id) for one in going_on] == [(0, 0, 5), (1, 0, 7)]
    assert [one.cumulative_logprob for one in going_on] == [-1.5, -2.1]
    assert finishing == []


def test_an_end_of_sequence_token_uses_up_no_place() -> None:
    going_on, finishing = continuations(BeamSearch(width=1), [0.0], [candidates(t2=-0.1, t5=-0.5)], 2)
    assert [one.token_id for one in going_on] == [5]
    assert [one.token_id for one in finishing] == [2]


@pytest.mark.parametrize(("early_stopping", "finished"), [(None, 1), (True, 0), (False, 0), ("never", 0)])
def test_an_unlikely_ending_counts_only_in_an_exhaustive_search(early_stopping, finished: int) -> None:
    _, finishing = continuations(
        BeamSearch(width=1, early_stopping=early_stopping), [0.0], [candidates(t5=-0.1, t2=-0.5)], 2
    )
    assert len(finishing) == finished


def test_equals_are_taken_in_the_order_of_their_beams() -> None:
    going_on, _ = continuations(
        BeamSearch(width=3), [-1.0, -1.0], [candidates(t9=-1.0, t5=-1.0), candidates(t7=-1.0)], None
    )
    assert [(one.beam, one.token_id) for one in going_on] == [(0, 9), (0, 5), (1, 7)]


def test_tokens_without_any_probability_continue_nothing() -> None:
    going_on, finishing = continuations(BeamSearch(width=2), [0.0], [candidates(t5=-0.1, t2=-math.inf)], 2)
    assert ([one.token_id for one in going_on], finishing) == ([5], [])


def test_score_is_by_the_length_of_prompt_and_output() -> None:
    assert score(-6.0, 3, 1.0) == -2.0
    assert score(-6.0, 3, 0.0) == -6.0
    assert score(-6.0, 3, -1.0) == -18.0
    assert score(-6.0, 0, 2.0) == -6.0


@pytest.mark.parametrize(
    ("early_stopping", "penalty", "worst", "decided"),
    [
        (True, 1.0, -99.0, True),
        (False, 1.0, -1.0, True),  # the best live beam: -4 / 4
        (False, 1.0, -1.1, False),
        ("never", 1.0, -1.0, False),  # it can come to -4 / 8
        ("never", 1.0, -0.5, True),
        (None, 1.0, -0.5, True),
        ("never", -1.0, -16.0, True),  # and only get worse than -4 * 4
        ("never", 0.0, -4.0, True),
    ],
)
def test_when_a_search_is_decided(early_stopping, penalty: float, worst: float, decided: bool) -> None:
    search = BeamSearch(width=1, early_stopping=early_stopping, length_penalty=penalty)
    assert is_decided(search, worst, best_live=-4.0, length=4, longest=8) is decided


# ---- what is found


@pytest.mark.parametrize("early_stopping", [None, True, False, "never"])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -2.0, 4.0])
@pytest.mark.parametrize("width", [1, 2, 5])
def test_answers_are_those_of_the_definition(width: int, length_penalty: float, early_stopping) -> None:
    beam = {"length_penalty": length_penalty, "early_stopping": early_stopping}
    for prompt in ([1], [4, 4, 4, 4], list(range(9))):
        drained(beam_request("a", prompt, 9, width=width, beam=beam))


def test_early_stopping_ends_searches_early() -> None:
    def steps(early_stopping) -> int:
        sample = {"eos_token_id": 10}
        search = {"early_stopping": early_stopping}
        return len(drained(beam_request("a", 6, 20, width=2, sample=sample, beam=search)).steps)

    assert steps(True) < steps(False) <= steps("never") < 20


def test_fewer_answers_than_beams() -> None:
    wide = drained(beam_request("a", 6, 6, width=4))
    few = drained(beam_request("a", 6, 6, width=4, n=2))
    assert len(few.choices) == 2
    assert [choice.token_ids for choice in few.choices.values()] == [wide.choices["a", at].token_ids for at in (0, 1)]


def test_the_context_ends_beams_too() -> None:
    simulation = drained(beam_request("a", 10, 100, sample={"ignore_eos": True}), max_model_len=16)
    assert {len(choice.token_ids) for choice in simulation.choices.values()} == {6}
    assert {choice.end.finish_reason for choice in simulation.choices.values()} == {FinishReason.LENGTH}


def test_sampling_is_not_for_searches() -> None:
    """Nothing of it reaches the rows: the engine would otherwise draw, penalize or ban."""
    sample = {"temperature": 2.0, "repetition_penalty": 1.5, "min_tokens": 5, "stop_token_ids": (1, 2, 3), "top_k": 1}
    simulation = drained(beam_request("a", 6, 6, sample=sample))
    plain = drained(beam_request("a", 6, 6))
    assert [choice.token_ids for choice in simulation.choices.values()] == [
        choice.token_ids for choice in plain.choices.values()
    ]
    row = simulation.plans[-1].rows[0].sampling
    assert (row.greedy, row.repetition_penalty, row.min_tokens, row.stop_token_ids) == (True, 1.0, 0, ())


def test_logprobs_are_as_many_as_were_asked_for() -> None:
    simulation = drained(beam_request("a", 6, 6, sample={"logprobs": 2}))
    for choice in simulation.choices.values():
        context = list(range(6))
        for entry in choice.end.logprobs:
            follows = distribution(context)
            assert entry.logprob == follows[entry.token_id]
            assert entry.rank == 1 + sum(other > entry.logprob for other in follows)
            assert entry.top_logprobs == sorted(follows, reverse=True)[:2]
            context.append(entry.token_id)


def test_more_logprobs_than_a_search_looks_at() -> None:
    simulation = drained(beam_request("a", 6, 4, width=2, sample={"logprobs": 9}))
    assert {len(entry.top_ids) for entry in simulation.choices["a", 0].end.logprobs} == {9}


def test_prompt_logprobs_come_once() -> None:
    simulation = drained(beam_request("a", 11, 4, sample={"prompt_logprobs": 0}), max_num_batched_tokens=4)
    assert [entry.token_id for entry in simulation.prompt_logprobs["a"]] == list(range(1, 11))


def test_a_search_announces_itself_when_its_prompt_is_computed() -> None:
    drained_before = drained(request("a", 10, 1))
    drained_before.add(beam_request("b", 10, 4))
    (first,) = drained_before.step().sequences
    assert (first.choice, first.cached_tokens, first.token_ids) == (0, 8, [])
    assert first.scheduled_time is not None
    drained_before.drain()
    drained_before.check_answers()


def test_the_best_beams_are_shown_after_each_step() -> None:
    search = {"width": 4, "beam": {"shown": True}, "sample": {"eos_token_id": None}}
    simulation = drained(beam_request("a", 6, 5, **search), beam_request("b", 6, 5, n=2, **search))
    shown = simulation.shown["a"]
    assert [[len(beam) for beam in beams] for beams in shown] == [[length] * 4 for length in range(1, 5)]
    assert all(choice.token_ids[:-1] in shown[-1] for choice in simulation.choices.values())
    assert simulation.shown["b"] == [beams[:2] for beams in shown]
    assert drained(beam_request("a", 6, 5)).shown.get("a", []) == []


def test_a_finished_beam_is_shown_without_its_last_token() -> None:
    simulation = drained(beam_request("a", 6, 6, beam={"shown": True}))
    finished = next(choice for choice in simulation.choices.values() if choice.token_ids[-1] == 2)
    assert finished.token_ids[:-1] in simulation.shown["a"][-1]


def test_a_search_that_runs_dry_says_so() -> None:
    """The model gives probability to a single continuation: there is no second answer."""
    subject = scheduler()
    subject.add(beam_request("a", 3, 2, width=2))
    outputs = []
    while (plan := subject.plan()) is not None:
        follows = TokenLogprobs(7, 0.0, 1, [7, 8, 9, 10], [0.0] + [-math.inf] * 3)
        outputs += subject.commit(plan, StepResult([RowResult(7, follows) for _ in plan.rows])).sequences
        subject.check()
    ends = [output for output in outputs if output.finish_reason is not None]
    assert [(end.choice, end.token_ids, end.finish_reason) for end in ends] == [
        (0, [7, 7], FinishReason.LENGTH),
        (1, [], FinishReason.ERROR),
    ]
    assert "only 1" in ends[1].error


def test_fewer_beams_than_answers_are_refused() -> None:
    with pytest.raises(BadRequest, match="at least as many beams"):
        scheduler().add(beam_request("a", 3, width=2, n=3))


# ---- what is shared


def test_beams_share_the_blocks_of_a_long_prompt() -> None:
    """40 tokens are 10 blocks; each beam adds the block it writes to and, in the end, those of its own output."""
    simulation = simulate(num_blocks=40)
    simulation.add(beam_request("a", 40, 8, width=5, sample={"ignore_eos": True}))
    used = []
    while simulation.scheduler.has_work:
        simulation.step()
        used.append(round(simulation.scheduler.stats.kv_usage * 40))
    simulation.check_answers()
    assert max(used) <= 10 + 5 * 2
    assert sum(step.stats.preemptions for step in simulation.steps) == 0
    computed = sum(plan.num_tokens for plan in simulation.plans)
    assert computed == 40 + 5 * 7, "only new tokens are computed"


def test_a_beam_of_one_never_copies() -> None:
    simulation = drained(beam_request("a", 6, 8, width=1))
    assert all(not plan.block_copies for plan in simulation.plans)


def test_prompts_are_found_in_the_prefix_cache() -> None:
    simulation = drained(beam_request("a", 11, 4))
    simulation.add(beam_request("b", [*range(10), 22], 4))
    output = simulation.step()
    assert output.sequences[0].cached_tokens == 8
    simulation.drain()
    simulation.check_answers()


# ---- under pressure


@pytest.mark.parametrize(
    "shape",
    [
        {"max_num_seqs": 1},
        {"max_num_seqs": 2, "enable_prefix_caching": False},
        {"max_num_batched_tokens": 2},
        {"num_blocks": 6, "max_model_len": 24},
        {"num_blocks": 6, "max_model_len": 24, "enable_prefix_caching": False},
        {"num_blocks": 6, "max_model_len": 24, "policy": "priority", "max_num_seqs": 1},
    ],
)
def test_beams_without_room_take_turns(shape: dict) -> None:
    """All of them without a room for two: more than seats, than tokens in a step, than the pool holds."""
    names = [beam_request(name, [index] * 7, 12, width=4) for index, name in enumerate("abc")]
    drained(*names, request("d", 5, 8), **shape)


def test_a_later_request_takes_no_place_of_beams_that_can_go_on() -> None:
    simulation = simulate(max_num_seqs=4)
    simulation.add(beam_request("a", 6, 12, width=4, sample={"ignore_eos": True}))
    simulation.step()
    simulation.add(request("b", 6, 4))
    ends = []
    while simulation.scheduler.has_work:
        ends += [output.request_id for output in simulation.step().sequences if output.finish_reason is not None]
    assert ends == ["a", "a", "a", "a", "b"]
    simulation.check_answers()


def test_neighbours_get_the_tokens_they_get_alone() -> None:
    drained(
        request("x", 9, 12),
        beam_request("a", 9, 12, width=4),
        request("y", 9, 12, n=3),
        num_blocks=20,
        max_model_len=24,
    )


# ---- other endings


def test_abort_ends_all_beams() -> None:
    simulation = simulate()
    simulation.add(beam_request("a", 6, 20, width=4, n=3))
    for _ in range(3):
        simulation.step()
    outputs = simulation.abort("a")
    assert [(output.choice, output.finish_reason) for output in outputs] == [
        (choice, FinishReason.ABORT) for choice in range(3)
    ]
    assert not simulation.scheduler.has_work
    assert simulation.scheduler.stats.kv_usage == 0


def test_abort_of_choices_one_by_one() -> None:
    simulation = simulate()
    simulation.add(beam_request("a", 6, 6, width=3))
    simulation.step()
    assert [output.choice for output in simulation.abort("a", 0)] == [0]
    assert simulation.abort("a", 0) == []
    assert simulation.abort("a", 17) == []
    simulation.step()
    assert [output.choice for output in simulation.abort("a", 2)] == [2]
    simulation.drain()
    simulation.check_answers()
    assert simulation.choices["a", 1].end.finish_reason in (FinishReason.STOP, FinishReason.LENGTH)


def test_the_last_choice_to_be_aborted_ends_the_search() -> None:
    simulation = simulate()
    simulation.add(beam_request("a", 6, 6, width=2))
    simulation.step()
    assert list(itertools.chain(simulation.abort("a", 1), simulation.abort("a", 0)))[-1].choice == 0
    assert not simulation.scheduler.has_work


def test_an_abort_while_a_step_is_under_way() -> None:
    simulation = simulate()
    simulation.add(beam_request("a", 6, 6), request("b", 6, 6))
    simulation.step()
    plan = simulation.plan()
    simulation.abort("a")
    simulation.commit(plan)
    simulation.drain()
    simulation.check_answers()


def test_a_row_that_fails_ends_its_search_once() -> None:
    simulation = simulate()
    simulation.add(beam_request("a", 6, 8, width=3), request("b", 6, 8))
    simulation.step()
    simulation.step()
    output = simulation.commit(simulation.plan(), {("a", 1): "not a number"})
    failed = [told for told in output.sequences if told.finish_reason is FinishReason.ERROR]
    assert [(told.request_id, told.choice, told.error) for told in failed] == [
        ("a", choice, "not a number") for choice in range(3)
    ]
    simulation.drain()
    simulation.check_answers()


def test_a_step_that_raises_ends_searches_once() -> None:
    simulation = simulate()
    simulation.add(beam_request("a", 6, 8, width=3))
    simulation.step()
    output = simulation.fail(simulation.plan(), "out of memory")
    assert [told.choice for told in output.sequences] == [0, 1, 2]
    assert not simulation.scheduler.has_work


def test_a_result_without_the_logprobs_that_were_asked_for_is_refused() -> None:
    subject = scheduler()
    subject.add(beam_request("a", 3))
    plan = subject.plan()
    with pytest.raises(ValueError, match="wants logprobs"):
        subject.commit(plan, StepResult([RowResult(1)]))
