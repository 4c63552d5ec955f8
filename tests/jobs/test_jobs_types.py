"""The table of moves, and what a policy may say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.core.errors import BadRequest
from headrace.jobs import JobPolicy, JobStatus
from headrace.jobs.moves import _move
from headrace.jobs.types import DAY, TRANSITIONS

CONTRACT = """
    IN_QUEUE IN_PROGRESS, IN_PROGRESS COMPLETED, IN_PROGRESS FAILED, IN_PROGRESS CANCELLED, IN_PROGRESS TIMED_OUT,
    IN_QUEUE CANCELLED, IN_QUEUE TIMED_OUT, IN_PROGRESS IN_QUEUE, FAILED IN_QUEUE, TIMED_OUT IN_QUEUE
"""
"""Section 3.1 of the wire contract."""


def test_the_table_is_that_of_the_contract():
    moves = {tuple(map(JobStatus, pair.split())) for pair in CONTRACT.split(",")}
    assert {(start, end) for start, ends in TRANSITIONS.items() for end in ends} == moves


@given(st.sampled_from(JobStatus), st.sampled_from(JobStatus))
def test_no_statement_can_be_made_for_a_move_that_is_not_in_the_table(start: JobStatus, end: JobStatus):
    if end in TRANSITIONS[start]:
        _move(start, end)
    else:
        with pytest.raises(AssertionError, match=f"no job goes from {start} to {end}"):
            _move(start, end)


@given(st.lists(st.sampled_from(JobStatus), min_size=1, max_size=12))
def test_every_way_through_the_table_ends_once_unless_it_is_retried(wishes: list[JobStatus]):
    status, ended = JobStatus.IN_QUEUE, 0
    for wish in wishes:
        if wish in TRANSITIONS[status]:
            retried = status.terminal
            assert not retried or status in (JobStatus.FAILED, JobStatus.TIMED_OUT)
            status = wish
            ended += status.terminal - retried
    assert ended == status.terminal


@pytest.mark.parametrize(
    ("fields", "parameter"),
    [
        ({"execution_timeout": 4_999}, "policy.executionTimeout"),
        ({"execution_timeout": 7 * DAY + 1}, "policy.executionTimeout"),
        ({"ttl": 9_999}, "policy.ttl"),
        ({"ttl": 7 * DAY + 1}, "policy.ttl"),
    ],
)
def test_a_policy_out_of_range_is_refused_by_name(fields: dict[str, int], parameter: str):
    with pytest.raises(BadRequest, match=rf"{parameter} must be from \d+ to 604800000 milliseconds") as caught:
        JobPolicy(**fields).check()
    assert caught.value.parameter == parameter


def test_the_borders_of_a_policy_are_allowed():
    JobPolicy(execution_timeout=5_000, ttl=10_000).check()
    JobPolicy(execution_timeout=7 * DAY, ttl=7 * DAY).check()
