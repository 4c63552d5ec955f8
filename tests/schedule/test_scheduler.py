"""Who runs how much: budget, seats, blocks, policies, preemption, endings. Forks and the prefix cache: next door."""

from __future__ import annotations

import pytest
from simulation import Simulation, answer, request, scheduler

from headrace.core.errors import BadRequest, ConfigError, ContextOverflow
from headrace.core.request import FinishReason
from headrace.schedule.plan import RowResult, StepPlan, StepResult


def rows(plan: StepPlan) -> list[tuple[str, int, int]]:
    """(request, start, tokens) of each row."""
    return [(row.request_id, row.start, len(row.token_ids)) for row in plan.rows]


# ---- what is refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_blocks": 15}, "60 tokens .15 blocks of 4., which is less than max_model_len=64"),
        ({"num_blocks": 0}, "num_blocks must be at least 1, got 0"),
        ({"block_size": 0}, "block_size must be at least 1, got 0"),
        ({"max_num_seqs": 0}, "max_num_seqs must be at least 1, got 0"),
        ({"max_num_batched_tokens": 0}, "max_num_batched_tokens must be at least 1, got 0"),
        ({"max_model_len": 1}, "max_model_len must be at least 2, got 1"),
        ({"policy": "lifo"}, "policy must be .fcfs. or .priority., got 'lifo'"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(changes: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        scheduler(**changes)


@pytest.mark.parametrize(
    ("wanted", "error", "parameter"),
    [
        (request("r", 64), ContextOverflow, "prompt"),
        (request("r", []), BadRequest, "prompt"),
        (request("r", 3, n=0), BadRequest, "n"),
    ],
)
def test_a_request_that_nothing_can_come_of_is_refused(wanted, error, parameter) -> None:
    subject = scheduler()
    with pytest.raises(error) as refusal:
        subject.add(wanted)
    assert refusal.value.parameter == parameter
    assert not subject.has_work


def test_the_longest_prompt_gets_its_one_token() -> None:
    simulation = Simulation(scheduler(num_blocks=16))
    simulation.add(request("r", 63, 99))
    simulation.drain()
    assert simulation.choices["r", 0].token_ids == answer(request("r", 63, 99), 0, 64)[0]
    assert len(simulation.choices["r", 0].token_ids) == 1
    assert simulation.choices["r", 0].end.finish_reason is FinishReason.LENGTH


def test_an_id_is_free_again_once_its_request_has_ended() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", 3, 1))
    with pytest.raises(BadRequest, match="'r' is in use"):
        simulation.scheduler.add(request("r", 3))
    simulation.drain()
    simulation.add(request("r", 3, 1))
    simulation.drain()
    simulation.check_answers()


def test_steps_come_one_at_a_time() -> None:
    subject = scheduler()
    assert subject.plan() is None
    subject.add(request("r", 3))
    plan = subject.plan()
    with pytest.raises(RuntimeError, match="before commit"):
        subject.plan()
    result = StepResult([RowResult(token_id=1)])
    with pytest.raises(RuntimeError, match="not the one under way"):
        subject.commit(StepPlan(plan.rows), result)
    subject.commit(plan, result)
    with pytest.raises(RuntimeError, match="not the one under way"):
        subject.commit(plan, result)


@pytest.mark.parametrize(
    "results", [[], [RowResult(token_id=1)] * 2, [RowResult()]], ids=["too few", "too many", "no token"]
)
def test_a_result_that_does_not_fit_its_plan_changes_nothing(results: list[RowResult]) -> None:
    subject = scheduler()
    subject.add(request("r", 3))
    plan = subject.plan()
    with pytest.raises(ValueError, match=r"results for 1 rows|wants a token"):
        subject.commit(plan, StepResult(results))
    (output,) = subject.fail(plan, "bad result").sequences
    assert (output.finish_reason, output.error) == (FinishReason.ERROR, "bad result")
    subject.check()


# ---- budget and seats


def test_a_long_prompt_is_computed_in_chunks_beside_decodes() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=10), budget=10)
    simulation.add(request("a", 4), request("b", 21))
    plans = []
    for _ in range(5):
        simulation.step()
        plans.append(rows(simulation.plans[-1]))
    assert plans == [
        [("a", 0, 4), ("b", 0, 6)],
        [("a", 4, 1), ("b", 6, 9)],
        [("a", 5, 1), ("b", 15, 6)],
        [("a", 6, 1), ("b", 21, 1)],
        [("a", 7, 1), ("b", 22, 1)],
    ]
    assert [len(row.block_table) for row in simulation.plans[0].rows] == [1, 2]
    assert [row.samples for row in simulation.plans[1].rows] == [True, False]
    assert [row.next_prompt_id for row in simulation.plans[1].rows] == [None, 15]
    assert [step.stats.prompt_tokens for step in simulation.steps] == [10, 9, 6, 0, 0]
    assert [step.stats.generation_tokens for step in simulation.steps] == [1, 1, 2, 2, 2]


def test_a_prefill_that_started_first_does_not_hold_up_later_decodes() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=8, policy="priority"), budget=8)
    simulation.add(request("short", 2))
    simulation.step()
    simulation.add(request("long", 40, priority=-1))
    simulation.step()
    assert rows(simulation.plans[-1]) == [("short", 2, 1), ("long", 0, 7)]


def test_decodes_leave_a_token_for_the_prefill() -> None:
    """However many seats are configured, no more sequences run than the budget has tokens."""
    simulation = Simulation(scheduler(max_num_seqs=100, max_num_batched_tokens=4), budget=4)
    simulation.add(*(request(f"r{number}", 1, 50) for number in range(3)))
    simulation.step()
    simulation.add(request("late", 12), request("later", 1))
    for _ in range(12):
        simulation.step()
        assert len(simulation.plans[-1].rows) == 4
    assert len(simulation.choices["late", 0].token_ids) == 1
    assert simulation.choices["later", 0].token_ids == []


def test_nobody_is_admitted_without_budget() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=8), budget=8)
    simulation.add(request("a", 20), request("b", 2))
    output = simulation.step()
    assert rows(simulation.plans[-1]) == [("a", 0, 8)]
    assert (output.stats.running, output.stats.waiting) == (1, 1)
    assert output.sequences == []
    simulation.step()
    simulation.step()
    assert rows(simulation.plans[-1]) == [("a", 16, 4), ("b", 0, 2)]


def test_fcfs_admits_in_order_of_arrival_and_ignores_priority() -> None:
    simulation = Simulation(scheduler(max_num_seqs=2))
    simulation.add(request("a", 2, 3), request("b", 2, 2), request("c", 2, 2), request("d", 2, 2, priority=-9))
    simulation.add(request("early", 2, 2, arrival_time=-1.0))
    order = []
    while simulation.step() is not None:
        order.append([row.request_id for row in simulation.plans[-1].rows])
    assert order == [["early", "a"], ["early", "a"], ["a", "b"], ["b", "c"], ["c", "d"], ["d"]]


def test_nobody_passes_a_request_that_waits_for_blocks() -> None:
    simulation = Simulation(scheduler(num_blocks=16, max_model_len=64))
    simulation.add(request("a", 40, 2), request("big", [1] * 40, 1), request("small", 1, 1))
    simulation.step()
    assert rows(simulation.plans[-1]) == [("a", 0, 40)]
    simulation.step()
    simulation.step()
    assert [row.request_id for row in simulation.plans[-1].rows] == ["small", "big"]


# ---- preemption


def test_when_blocks_run_out_the_newest_gives_way_and_goes_on_later() -> None:
    subject = scheduler(num_blocks=6, max_model_len=24, enable_prefix_caching=False)
    simulation = Simulation(subject, max_model_len=24)
    simulation.add(request("old", [1] * 8, 10), request("new", [2] * 8, 8))
    for _ in range(6):
        simulation.step()
    assert rows(simulation.plans[-1]) == [("old", 12, 1)]
    assert simulation.steps[-1].stats.preemptions == 1
    assert len(simulation.choices["new", 0].token_ids) == 5
    simulation.add(request("next", [3] * 4, 1))
    while simulation.choices["old", 0].end is None:
        simulation.step()
        assert len(simulation.plans[-1].rows) == 1, "'next' must not pass the preempted one"
    simulation.step()
    assert rows(simulation.plans[-1]) == [("new", 0, 13), ("next", 0, 4)]
    assert simulation.plans[-1].rows[0].output_index == 5
    simulation.drain()
    simulation.check_answers()


def test_what_was_preempted_finds_its_blocks_again() -> None:
    simulation = Simulation(scheduler(num_blocks=8, max_model_len=32, policy="priority", max_num_seqs=1))
    simulation.add(request("low", 10, 5))
    simulation.step()
    simulation.step()
    simulation.add(request("high", [9] * 4, 1, priority=-1))
    simulation.step()
    assert rows(simulation.plans[-1]) == [("high", 0, 4)]
    assert simulation.steps[-1].stats.preemptions == 1
    simulation.step()
    assert rows(simulation.plans[-1]) == [("low", 8, 4)], "two full blocks were still there"
    simulation.drain()
    simulation.check_answers()
    assert simulation.choices["low", 0].outputs[0].cached_tokens == 0


def test_priority_takes_blocks_from_the_lowest_and_from_no_more_than_needed() -> None:
    simulation = Simulation(scheduler(num_blocks=16, policy="priority"))
    simulation.add(*(request(f"p{priority}", [priority] * 16, 9, priority=priority) for priority in (1, 2, 3)))
    simulation.step()
    simulation.add(request("urgent", [9] * 16, 9, priority=0))
    simulation.step()
    # 16 blocks, 3 * 5 in use: the 4 wanted are there once the last of them is gone.
    assert [row.request_id for row in simulation.plans[-1].rows] == ["p1", "p2", "urgent"]
    assert simulation.steps[-1].stats.preemptions == 1
    simulation.drain()
    simulation.check_answers()


def test_priority_preempts_nobody_in_vain() -> None:
    simulation = Simulation(scheduler(num_blocks=16, policy="priority"))
    simulation.add(request("top", [1] * 30, 4, priority=-2), request("low", [2] * 10, 9, priority=5))
    simulation.step()
    simulation.add(request("middle", [3] * 40, 1, priority=0))
    simulation.step()
    assert {row.request_id for row in simulation.plans[-1].rows} == {"top", "low"}, "10 blocks would not be free"
    assert simulation.steps[-1].stats.preemptions == 0
    simulation.drain()
    simulation.check_answers()


def test_equal_priority_preempts_nobody_for_a_newcomer() -> None:
    simulation = Simulation(scheduler(max_num_seqs=1, policy="priority"))
    simulation.add(request("a", 4, 3, arrival_time=2.0))
    simulation.step()
    simulation.add(request("b", 4, 1, arrival_time=1.0))
    simulation.step()
    assert rows(simulation.plans[-1]) == [("a", 4, 1)]


# ---- outputs


def test_first_output_tells_when_it_ran_and_what_was_cached() -> None:
    times = iter(range(100, 200))
    simulation = Simulation(scheduler(max_num_batched_tokens=4, clock=lambda: float(next(times))), budget=4)
    simulation.add(request("r", 6, 2))
    assert simulation.step().sequences == []
    (first,) = simulation.step().sequences
    (second,) = simulation.step().sequences
    assert (first.scheduled_time, first.cached_tokens) == (100.0, 0)
    assert (second.scheduled_time, second.cached_tokens) == (None, None)
    assert second.finish_reason is FinishReason.LENGTH
    assert [step.stats.seconds for step in simulation.steps] == [1.0, 1.0, 1.0]


def test_history_is_there_for_rules_that_look_back_and_does_not_change() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=4), budget=4)
    simulation.add(request("r", 5, sample={"repetition_penalty": 1.3}))
    for _ in range(4):
        simulation.step()
    histories = [plan.rows[0].history for plan in simulation.plans]
    token_ids = simulation.choices["r", 0].token_ids
    assert histories[0] is None
    assert [history.prompt_ids for history in histories[1:]] == [[0, 1, 2, 3, 4]] * 3
    assert [history.output_ids for history in histories[1:]] == [[], token_ids[:1], token_ids[:2]]
    simulation.add(request("plain", 2))
    simulation.step()
    assert simulation.plans[-1].rows[-1].history is None


def test_a_failing_row_ends_alone() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("bad", 5), request("good", 5))
    outputs = simulation.step({("bad", 0): "no token is allowed"}).sequences
    assert [(output.request_id, output.finish_reason, output.error) for output in outputs] == [
        ("bad", FinishReason.ERROR, "no token is allowed"),
        ("good", None, None),
    ]
    simulation.drain()
    simulation.check_answers()


def test_a_failing_step_ends_its_sequences_and_leaves_nothing_to_find() -> None:
    simulation = Simulation(scheduler(max_num_seqs=1))
    simulation.add(request("a", 20), request("b", 20))
    output = simulation.fail(simulation.plan(), "out of memory")
    assert [(sequence.request_id, sequence.error) for sequence in output.sequences] == [("a", "out of memory")]
    assert (output.stats.running, output.stats.waiting, output.stats.kv_usage) == (0, 1, 0.0)
    simulation.step()
    assert rows(simulation.plans[-1]) == [("b", 0, 20)]
    assert simulation.steps[-1].stats.prefix_hits == 0


# ---- abort


def test_abort_frees_the_blocks_at_once() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 9), request("b", 9))
    simulation.step()
    (output,) = simulation.abort("a")
    assert (output.request_id, output.finish_reason, output.error) == ("a", FinishReason.ABORT, None)
    stats = simulation.scheduler.stats
    assert (stats.running, stats.waiting, stats.kv_usage) == (1, 0, 3 / 64)
    assert simulation.step().stats.kv_usage == 3 / 64
    assert simulation.abort("a") == []
    assert simulation.abort("never heard of") == []
    assert simulation.abort("b", 7) == []
    assert len(simulation.abort("b", 0)) == 1
    assert not simulation.scheduler.has_work


def test_abort_before_anything_ran() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 9, n=3))
    outputs = simulation.abort("a")
    assert [output.choice for output in outputs] == [0, 1, 2]
    assert outputs[0].scheduled_time is None
    assert simulation.step() is None


def test_a_result_that_comes_after_the_end_is_dropped() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 9), request("b", 9))
    plan = simulation.plan()
    simulation.abort("a")
    again = request("a", [5] * 9, 2)  # the same id, while the old row is still being computed
    simulation.choices.pop(("a", 0))
    result = StepResult([RowResult(token_id=1), RowResult(token_id=2)])
    simulation.scheduler.add(again)
    output = simulation.scheduler.commit(plan, result)
    assert [(sequence.request_id, sequence.token_ids) for sequence in output.sequences] == [("b", [2])]
    assert (output.stats.generation_tokens, output.stats.prompt_tokens) == (1, 9)
    (row, _) = simulation.scheduler.plan().rows[::-1]
    assert (row.request_id, row.start, row.output_index) == ("a", 0, 0)
