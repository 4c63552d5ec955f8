"""Blocks with several owners: the prefix cache, and the choices of one request."""

from __future__ import annotations

import pytest
from simulation import Simulation, request, scheduler

from headrace.core.request import FinishReason

# ---- prefix cache


def first_row(simulation: Simulation, request_id: str):
    return next(row for plan in simulation.plans for row in plan.rows if row.request_id == request_id)


def test_full_blocks_of_an_equal_prefix_are_not_computed_again() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 11, 1))
    simulation.drain()
    simulation.add(request("b", [*range(10), 99], 1))
    output = simulation.step()
    assert (first_row(simulation, "b").start, len(first_row(simulation, "b").token_ids)) == (8, 3)
    assert first_row(simulation, "b").block_table[:2] == first_row(simulation, "a").block_table[:2]
    assert output.sequences[0].cached_tokens == 8
    assert (output.stats.prefix_queries, output.stats.prefix_hits, output.stats.prompt_tokens) == (11, 8, 3)
    simulation.check_answers()


def test_the_last_known_token_is_always_computed() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 8, 1))
    simulation.drain()
    simulation.add(request("b", 8, 1))
    simulation.drain()
    assert first_row(simulation, "b").start == 4
    simulation.check_answers()


def test_generated_tokens_are_found_too() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 6, 7))
    simulation.drain()
    simulation.add(request("b", [*range(6), *simulation.choices["a", 0].token_ids], 1))
    simulation.drain()
    assert first_row(simulation, "b").start == 12
    simulation.check_answers()


def test_a_prefix_is_shared_while_its_first_owner_runs() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 8, 20))
    simulation.step()
    simulation.add(request("b", [*range(8), 50], 20))
    output = simulation.step()
    assert output.stats.kv_usage == (3 + 1) / 64
    simulation.drain()
    simulation.check_answers()


def test_equal_prompts_in_one_step_are_both_computed_and_indexed_once() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 9, 2), request("b", 9, 2))
    simulation.step()
    assert [row.start for row in simulation.plans[-1].rows] == [0, 0]
    simulation.drain()
    simulation.add(request("c", 9, 1))
    simulation.drain()
    assert first_row(simulation, "c").block_table[:2] == first_row(simulation, "a").block_table[:2]
    simulation.check_answers()


def test_a_block_is_found_only_when_it_is_full_and_computed() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=6), budget=6)
    simulation.add(request("a", 14))
    simulation.step()
    simulation.plan()  # computes positions 6 … 11 and is never committed
    simulation.fail(simulation.plans[-1], "out of memory")
    simulation.add(request("b", 14, 1))
    simulation.step()
    assert first_row(simulation, "b").start == 4
    simulation.drain()
    simulation.check_answers()


@pytest.mark.parametrize(
    "changes",
    [{"cache_salt": "other"}, {"cache_salt": None}, {"cache_salt": "mine", "sample": {"prompt_logprobs": 0}}],
)
def test_who_must_not_read_the_cache_does_not(changes: dict) -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 9, 1, cache_salt="mine"))
    simulation.drain()
    simulation.add(request("b", 9, 1, **changes))
    (output,) = simulation.step().sequences
    assert first_row(simulation, "b").start == 0
    assert output.cached_tokens == 0
    simulation.add(request("c", 9, 1, cache_salt="mine"))
    simulation.step()
    assert first_row(simulation, "c").start == 8


def test_without_prefix_caching_nothing_is_found() -> None:
    simulation = Simulation(scheduler(enable_prefix_caching=False))
    for name in "ab":
        simulation.add(request(name, 9, 1))
        simulation.drain()
    assert first_row(simulation, "b").start == 0
    assert [step.stats.prefix_queries for step in simulation.steps] == [0, 0]


def test_a_salt_may_be_any_text_that_json_can_carry() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("a", 9, 1, cache_salt="\ud800"))
    simulation.drain()
    simulation.check_answers()


# ---- prompt logprobs


def test_prompt_logprobs_come_in_chunks_each_position_once() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=4), budget=4)
    simulation.add(request("a", 10, 2, sample={"prompt_logprobs": 0}))
    simulation.drain()
    counts = [len(output.sequences[0].prompt_logprobs) if output.sequences else None for output in simulation.steps]
    assert counts == [4, 4, 1, 0]
    assert [plan.rows[0].prompt_logprobs_from for plan in simulation.plans] == [1, 5, 9, None]
    assert [plan.rows[0].next_prompt_id for plan in simulation.plans] == [4, 8, None, None]
    simulation.check_answers()


def test_a_chunk_that_ends_before_the_last_prompt_token_owes_that_ones_logprobs() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=4), budget=4)
    simulation.add(
        request("a", 5, 1, sample={"prompt_logprobs": 0}), request("one", 1, 1, sample={"prompt_logprobs": 0})
    )
    simulation.drain()
    assert [plan.rows[0].prompt_logprobs_from for plan in simulation.plans] == [1, None]
    simulation.check_answers()


def test_prompt_logprobs_survive_preemption() -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=4, max_num_seqs=1, policy="priority"), budget=4)
    simulation.add(request("a", 10, 2, sample={"prompt_logprobs": 0}))
    simulation.step()
    simulation.add(request("urgent", 2, 1, priority=-1))
    simulation.drain()
    restarted = [plan.rows[0] for plan in simulation.plans if plan.rows[0].request_id == "a"][1]
    assert (restarted.start, restarted.prompt_logprobs_from) == (0, 5)
    simulation.check_answers()


# ---- several choices


@pytest.mark.parametrize("prompt_len", [1, 7, 8, 9])
def test_choices_share_the_prompt_and_part_at_the_first_token(prompt_len: int) -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", prompt_len, 6, n=3))
    (leader,) = simulation.step().sequences
    assert leader.choice == 0
    output = simulation.step()
    assert [sequence.choice for sequence in output.sequences] == [0, 1, 2]
    plan = simulation.plans[-1]
    assert [(row.start, row.output_index, row.samples) for row in plan.rows] == [
        (prompt_len, 1, True),
        (prompt_len - 1, 0, True),
        (prompt_len - 1, 0, True),
    ]
    full = (prompt_len - 1) // 4
    assert len({tuple(row.block_table[:full]) for row in plan.rows}) == 1
    assert len({row.block_table[full] for row in plan.rows}) == 3
    assert [sequence.cached_tokens for sequence in output.sequences] == [None, 0, 0]
    simulation.drain()
    simulation.check_answers()
    assert len({tuple(simulation.choices["r", number].token_ids) for number in range(3)}) == 3


def test_a_copied_block_stays_owned_until_the_step_is_over() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", 6, 6, n=2))
    simulation.step()
    plan = simulation.plan()
    (source,) = {source for source, _ in plan.block_copies}
    assert source not in {block for row in plan.rows for block in row.block_table}
    simulation.abort("r")  # whose check() counts the copies under way as owners
    assert simulation.commit(plan).stats.kv_usage == 0


def test_a_leader_that_ends_at_once_leaves_the_prompt_to_its_siblings() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", 8, 1, n=3))
    (leader,) = simulation.step().sequences
    assert leader.finish_reason is FinishReason.LENGTH
    output = simulation.step()
    assert [sequence.choice for sequence in output.sequences] == [1, 2]
    assert output.stats.kv_usage == 0
    simulation.check_answers()
    simulation.add(request("again", 12, 1))
    simulation.drain()
    assert first_row(simulation, "again").start == 8
    simulation.check_answers()


def test_siblings_without_a_seat_wait_and_find_the_prompt_again() -> None:
    simulation = Simulation(scheduler(max_num_seqs=2))
    simulation.add(request("r", 9, 3, n=4))
    output = simulation.step()
    assert (output.stats.running, output.stats.waiting) == (2, 2)
    simulation.drain()
    late = next(row for plan in simulation.plans for row in plan.rows if row.choice == 3)
    assert late.start == 8
    assert simulation.choices["r", 3].outputs[0].cached_tokens == 0, "only the leader's hits are the caller's"
    assert sum(step.stats.prefix_queries for step in simulation.steps) == 9
    simulation.check_answers()


def test_choices_end_one_by_one() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", 6, 5, n=3))
    simulation.step()
    simulation.step()
    (output,) = simulation.abort("r", 1)
    assert output.choice == 1
    simulation.drain()
    simulation.check_answers()
    assert simulation.choices["r", 0].end.finish_reason is FinishReason.LENGTH
    assert simulation.choices["r", 2].end.finish_reason is FinishReason.LENGTH


def test_a_choice_can_end_before_it_is_forked() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", 6, 2, n=3))
    (output,) = simulation.abort("r", 1)
    assert (output.choice, output.finish_reason) == (1, FinishReason.ABORT)
    assert simulation.abort("r", 1) == []
    simulation.drain()
    assert simulation.choices["r", 1].token_ids == []
    simulation.check_answers()


@pytest.mark.parametrize("steps", [0, 1, 2])
@pytest.mark.parametrize("under_way", [False, True])
def test_the_next_choice_takes_over_from_a_leader_that_is_aborted(steps: int, under_way: bool) -> None:
    simulation = Simulation(scheduler(max_num_batched_tokens=4), budget=4)
    simulation.add(request("r", 11, 3, n=3, sample={"prompt_logprobs": 0}), request("other", 2, 2))
    for _ in range(steps):
        simulation.step()
    plan = simulation.plan() if under_way else None
    (output,) = simulation.abort("r", 0)
    assert (output.choice, output.finish_reason) == (0, FinishReason.ABORT)
    if plan is not None:
        assert simulation.commit(plan).sequences == []
    simulation.step()
    (row,) = [row for row in simulation.plans[-1].rows if row.request_id == "r"]
    assert (row.choice, row.start) == (1, 4 * steps), "nothing that was computed is lost"
    simulation.drain()
    assert [len(simulation.choices["r", number].token_ids) for number in range(3)] == [0, 3, 3]
    simulation.check_answers()


def test_an_error_in_the_prompt_ends_all_choices_that_wait_for_it() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", 6, 2, n=3))
    outputs = simulation.step({("r", 0): "not a number"}).sequences
    assert [(output.choice, output.finish_reason, output.error) for output in outputs] == [
        (number, FinishReason.ERROR, "not a number") for number in range(3)
    ]
    assert not simulation.scheduler.has_work


def test_an_error_after_the_fork_ends_one_choice() -> None:
    simulation = Simulation(scheduler())
    simulation.add(request("r", 6, 3, n=3))
    simulation.step()
    outputs = simulation.step({("r", 1): "not a number"}).sequences
    assert [output.finish_reason for output in outputs] == [None, FinishReason.ERROR, None]
    simulation.drain()
    simulation.check_answers()
