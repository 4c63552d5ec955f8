"""Sequences in rank order. Both policies are nothing but a way to rank, so waiting and running are the same queue."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator
from operator import attrgetter

from headrace.schedule.sequence import Sequence

_rank = attrgetter("rank")


class SequenceQueue:
    """Distinct sequences, lowest rank first. A sorted list: faster than a heap up to tens of thousands of entries, and
    it can be read from both ends and give up an entry in its middle.
    """

    def __init__(self) -> None:
        self._items: list[Sequence] = []

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[Sequence]:
        return iter(self._items)

    def __reversed__(self) -> Iterator[Sequence]:
        return reversed(self._items)

    @property
    def first(self) -> Sequence:
        return self._items[0]

    @property
    def last(self) -> Sequence:
        return self._items[-1]

    def add(self, sequence: Sequence) -> None:
        insort(self._items, sequence, key=_rank)

    def remove(self, sequence: Sequence) -> None:
        """Raises `ValueError` if it is not there."""
        place = bisect_left(self._items, sequence.rank, key=_rank)
        if place == len(self._items) or self._items[place] is not sequence:
            raise ValueError(f"{sequence.request.request_id}/{sequence.choice} is not in this queue")
        del self._items[place]
