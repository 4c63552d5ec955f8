from __future__ import annotations

import pytest
from simulation import request

from headrace.schedule.queue import SequenceQueue
from headrace.schedule.sequence import Sequence


def sequence(priority: int, serial: int, choice: int = 0) -> Sequence:
    return Sequence(request=request("r", 3), choice=choice, rank=(priority, 0.0, serial, choice))


def test_order_is_by_rank_whatever_the_order_of_arrival() -> None:
    queue = SequenceQueue()
    late, urgent, early, sibling = sequence(0, 9), sequence(-1, 10), sequence(0, 1), sequence(0, 1, choice=1)
    for item in (late, urgent, sibling, early):
        queue.add(item)
    assert list(queue) == [urgent, early, sibling, late]
    assert list(reversed(queue)) == [late, sibling, early, urgent]
    assert (queue.first, queue.last, len(queue)) == (urgent, late, 4)
    queue.remove(sibling)
    assert list(queue) == [urgent, early, late]


def test_removing_what_is_not_there_is_an_error() -> None:
    queue = SequenceQueue()
    queue.add(sequence(0, 1))
    for stranger in (sequence(0, 1), sequence(0, 0), sequence(0, 2)):
        with pytest.raises(ValueError, match="not in this queue"):
            queue.remove(stranger)
    assert len(queue) == 1


def test_tokens_across_the_end_of_the_prompt() -> None:
    item = sequence(0, 1)
    item.output_ids += [7, 8, 9]
    assert item.tokens(0, 2) == [0, 1]
    assert item.tokens(1, 5) == [1, 2, 7, 8]
    assert item.tokens(0, 6) == [0, 1, 2, 7, 8, 9]
    assert item.tokens(3, 5) == [7, 8]
    assert item.tokens(5, 6) == [9]
    assert item.request.prompt_ids == [0, 1, 2]
