"""Who runs next on a model that pools: order, budgets, and that every request ends exactly once."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import BadRequest, ConfigError, ContextOverflow
from headrace.core.pooling import PoolingParams, PoolingRequest, PoolingTask
from headrace.schedule.pooling import PooledRow, PoolingPlan, PoolingScheduler

EMBED = PoolingParams(task=PoolingTask.EMBED)
MAX_MODEL_LEN = 40


def request(name: str, length: int = 4, **fields) -> PoolingRequest:
    return PoolingRequest(request_id=name, prompt_ids=[1] * length, params=EMBED, **fields)


def scheduler(**limits) -> PoolingScheduler:
    defaults = {"max_num_seqs": 4, "max_num_batched_tokens": 16, "max_model_len": MAX_MODEL_LEN, "policy": "fcfs"}
    return PoolingScheduler(**{**defaults, **limits}, clock=lambda: 7.0)


def rows(plan: PoolingPlan) -> list[PooledRow]:
    return [PooledRow([1], request.request_id.encode()) for request in plan.requests]


def names(plan: PoolingPlan | None) -> list[str]:
    return [request.request_id for request in plan.requests] if plan is not None else []


def run(running: PoolingScheduler) -> list[list[str]]:
    """Step until nothing is left; who ran in each step."""
    steps = []
    while (plan := running.plan()) is not None:
        steps.append(names(plan))
        running.commit(plan, rows(plan))
        running.check()
    return steps


def test_a_step_takes_what_its_budgets_hold():
    running = scheduler()
    for name, length in (("a", 8), ("b", 8), ("c", 1), ("d", 1), ("e", 1), ("f", 1), ("g", 1)):
        running.add(request(name, length))

    assert run(running) == [["a", "b"], ["c", "d", "e", "f"], ["g"]]
    assert not running.has_work


def test_an_input_longer_than_a_step_runs_alone():
    running = scheduler()
    for name, length in (("a", 2), ("b", 40), ("c", 2)):
        running.add(request(name, length))

    assert run(running) == [["a"], ["b"], ["c"]]


def test_tokens_count_in_whole_blocks():
    running = scheduler(block_size=8)
    for name in "abc":
        running.add(request(name, 3))

    assert run(running) == [["a", "b"], ["c"]]


def test_arrival_decides_and_then_who_was_added_first():
    running = scheduler(max_num_seqs=1)
    running.add(request("late", arrival_time=2.0, priority=-1))
    running.add(request("first", arrival_time=1.0))
    running.add(request("second", arrival_time=1.0))

    assert run(running) == [["first"], ["second"], ["late"]]


def test_priority_comes_before_arrival_where_it_counts():
    running = scheduler(max_num_seqs=1, policy="priority")
    running.add(request("early", arrival_time=1.0))
    running.add(request("urgent", arrival_time=2.0, priority=-1))

    assert run(running) == [["urgent"], ["early"]]


def test_what_is_said_of_a_step():
    running = scheduler(max_num_seqs=2)
    for name, length in (("a", 5), ("b", 3), ("c", 2)):
        running.add(request(name, length))
    assert (running.stats.running, running.stats.waiting) == (2, 1)

    plan = running.plan()
    output = running.commit(plan, [PooledRow([2], b"12345678"), PooledRow([], b"", "not finite")])

    first, second = output.pooled
    assert (first.request_id, first.shape, first.data, first.error) == ("a", [2], b"12345678", None)
    assert (second.request_id, second.data, second.error) == ("b", b"", "not finite")
    assert first.scheduled_time == 7.0
    assert output.sequences == []
    assert (output.stats.prompt_tokens, output.stats.running, output.stats.waiting) == (5, 1, 0)


def test_a_failed_step_ends_its_requests_only():
    running = scheduler(max_num_seqs=1)
    running.add(request("a"))
    running.add(request("b"))

    output = running.fail(running.plan(), "broken")

    assert [(end.request_id, end.error) for end in output.pooled] == [("a", "broken")]
    assert run(running) == [["b"]]


def test_an_abort_while_the_step_runs_drops_its_row():
    running = scheduler()
    running.add(request("a"))
    running.add(request("b"))
    plan = running.plan()
    running.abort("a")
    running.add(request("a", 9))  # the id is free again
    running.check()

    assert [end.request_id for end in running.commit(plan, rows(plan)).pooled] == ["b"]
    assert run(running) == [["a"]]


@pytest.mark.parametrize(
    ("wrong", "kind", "message"),
    [
        (request("taken"), BadRequest, "in use by a request that has not ended"),
        (request("empty", 0), BadRequest, "at least 1 token"),
        (request("long", 41), ContextOverflow, "41 tokens; the model takes at most 40"),
        (request("types", 3, token_type_ids=[0, 1]), BadRequest, "as many as the tokens, 3, got 2"),
    ],
)
def test_refused(wrong, kind, message):
    running = scheduler()
    running.add(request("taken"))

    with pytest.raises(kind, match=message):
        running.add(wrong)

    assert run(running) == [["taken"]]


@pytest.mark.parametrize("name", ["max_num_seqs", "max_num_batched_tokens", "max_model_len", "block_size"])
def test_sizes_must_be_positive(name):
    with pytest.raises(ConfigError, match=f"{name} must be at least 1"):
        scheduler(**{name: 0})


def test_a_plan_is_applied_once_and_by_its_own_rows():
    running = scheduler()
    running.add(request("a"))
    plan = running.plan()
    with pytest.raises(RuntimeError, match="before commit"):
        running.plan()
    with pytest.raises(ValueError, match="0 rows"):
        running.commit(plan, [])
    running.commit(plan, rows(plan))

    with pytest.raises(RuntimeError, match="not the one under way"):
        running.commit(plan, rows(plan))


ACTIONS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.integers(1, MAX_MODEL_LEN), st.integers(-2, 2)),
        st.tuples(st.just("abort"), st.integers(0, 30), st.just(0)),
        st.tuples(st.just("step"), st.booleans(), st.integers(0, 30)),
    ),
    max_size=60,
)


@settings(max_examples=200, deadline=None)
@given(
    actions=ACTIONS,
    seats=st.integers(1, 5),
    tokens=st.integers(1, 50),
    block_size=st.sampled_from([1, 16]),
    policy=st.sampled_from(["fcfs", "priority"]),
)
def test_every_request_ends_exactly_once(actions, seats, tokens, block_size, policy):
    """Whatever comes in between: budgets hold, nobody is passed over, and all that were not aborted end once."""
    running = scheduler(max_num_seqs=seats, max_num_batched_tokens=tokens, block_size=block_size, policy=policy)
    added: dict[str, PoolingRequest] = {}
    aborted: set[str] = set()
    ended: list[str] = []

    def step(fails: bool, abort: str | None) -> None:
        if (plan := running.plan()) is None:
            return
        cost = [-(-len(planned.prompt_ids) // block_size) * block_size for planned in plan.requests]
        assert len(cost) <= seats
        assert len(cost) == 1 or sum(cost) <= tokens
        waiting = [name for name in added if name not in aborted and name not in ended]
        rank = {
            name: (added[name].priority if policy == "priority" else 0, list(added).index(name)) for name in waiting
        }
        assert names(plan) == sorted(waiting, key=rank.__getitem__)[: len(cost)]
        if abort in names(plan):
            running.abort(abort)
            aborted.add(abort)
        output = running.fail(plan, "broken") if fails else running.commit(plan, rows(plan))
        ended.extend(end.request_id for end in output.pooled)

    for number, (action, value, extra) in enumerate(actions):
        match action:
            case "add":
                added[f"r{number}"] = request(f"r{number}", value, priority=extra)
                running.add(added[f"r{number}"])
            case "abort":
                name = f"r{value}"
                running.abort(name)
                if name in added and name not in ended:
                    aborted.add(name)
            case "step":
                step(value, f"r{extra}")
        running.check()
    while running.has_work:
        step(False, None)

    assert sorted(ended) == sorted(added.keys() - aborted)
    assert len(set(ended)) == len(ended)
