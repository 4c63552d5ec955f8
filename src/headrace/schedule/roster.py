"""The sequences that live, each in the queue of its status, and what moving between queues does to their blocks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from headrace.schedule.block_tables import BlockTables
from headrace.schedule.queue import SequenceQueue
from headrace.schedule.sequence import Sequence, Status


class Roster:
    """At most `seats` sequences run at once, and only those that run have blocks. For the scheduler's use alone.

    Queues are to be read only; `live` gives a request's sequences by choice or, for a beam search, by beam.
    """

    def __init__(self, tables: BlockTables, seats: int) -> None:
        self.waiting = SequenceQueue()
        self.running = SequenceQueue()
        self.parked = SequenceQueue()
        self._queues = {Status.WAITING: self.waiting, Status.RUNNING: self.running, Status.PARKED: self.parked}
        self._live: dict[str, dict[int, Sequence]] = {}
        self._tables = tables
        self._seats = seats

    @property
    def is_empty(self) -> bool:
        return not self._live

    @property
    def num_waiting(self) -> int:
        """Sequences that live and do not run."""
        return len(self.waiting) + len(self.parked)

    def __contains__(self, request_id: str) -> bool:
        return request_id in self._live

    def live(self, request_id: str) -> list[Sequence]:
        """A copy, in order of their creation; empty if the request has ended."""
        return list(self._live.get(request_id, {}).values())

    def enter(self, sequence: Sequence) -> None:
        """A new sequence, in the queue that its status says."""
        self._live.setdefault(sequence.request.request_id, {})[sequence.choice] = sequence
        self._queues[sequence.status].add(sequence)

    def retire(self, sequence: Sequence) -> None:
        """It has ended."""
        self._move(sequence, Status.FINISHED)
        self._tables.release(sequence)
        if sequence.grammar is not None:
            sequence.grammar.release()
        live = self._live[sequence.request.request_id]
        del live[sequence.choice]
        if not live:
            del self._live[sequence.request.request_id]

    def run(self, sequence: Sequence, cached: list[int]) -> None:
        """Let a sequence that waits run, with blocks for all its tokens, of which `cached` hold the first."""
        self._tables.admit(sequence, cached)
        self._move(sequence, Status.RUNNING)

    def preempt(self, sequence: Sequence) -> None:
        """Take a running sequence's seat and blocks. It keeps its tokens and computes them again later; a beam that
        rests keeps what it knows and will not even ask to run until its search goes on.
        """
        status = Status.PARKED if sequence.rests else Status.WAITING
        self._tables.release(sequence)
        sequence.num_computed = 0
        self._move(sequence, status)

    def wake(self, sequence: Sequence) -> None:
        """A beam has been given a token: if it lost its place while it rested, it waits for another one."""
        if sequence.status is Status.PARKED:
            self._move(sequence, Status.WAITING)

    def fork(self, parent: Sequence, choice: int, num_computed: int) -> Sequence:
        """A new sequence with the tokens of `parent`. If that runs and there is a seat it shares all its blocks, with
        the keys and values of `num_computed` tokens; else it waits, and may find some of them in the prefix cache.
        """
        child = parent.fork(choice)
        child.num_cached = 0  # the first sequence has told what the request found in the cache
        if parent.status is Status.RUNNING and len(self.running) < self._seats:
            self._tables.fork(parent, child)
            child.num_computed = num_computed
            child.status = Status.RUNNING
        self.enter(child)
        return child

    def hand_over(self, leader: Sequence) -> None:
        """Let the next choice become the leader, with all that has been computed and told. The old one is about to end,
        so that the result of a step under way, drawn for the old choice, is dropped like that of any other.
        """
        choice, *unforked = leader.unforked
        heir = leader.fork(choice)
        heir.unforked, leader.unforked = unforked, []
        heir.status = leader.status
        heir.num_computed = leader.num_computed
        heir.num_cached = leader.num_cached
        heir.prompt_logprobs_from = leader.prompt_logprobs_from
        self._tables.fork(leader, heir)
        self.enter(heir)

    def make_way(self, newcomer: Sequence, cached: list[int], resting: Iterable[Sequence]) -> list[Sequence] | None:
        """The running sequences to preempt so that there is a seat and blocks for `newcomer`. None if it has to wait;
        changes nothing.

        First to give way, in the order given, are the beams `resting` that are of the newcomer's own search or rank
        behind it; then, highest ranks first, what is of a lower priority class. Within a class nobody who has something
        to compute is preempted for a newcomer, a fork that comes late included.
        """
        victims: list[Sequence] = []
        candidates = self._displaceable(newcomer, resting)
        while len(self.running) - len(victims) >= self._seats or not self._tables.fits(newcomer, cached, victims):
            victim = next(candidates, None)
            if victim is None:
                return None
            victims.append(victim)
        return victims

    def _displaceable(self, newcomer: Sequence, resting: Iterable[Sequence]) -> Iterator[Sequence]:
        for sequence in resting:
            if sequence.request is newcomer.request or sequence.rank > newcomer.rank:
                yield sequence
        for sequence in reversed(self.running):
            if sequence.rank[0] <= newcomer.rank[0]:
                return
            if not sequence.rests:
                yield sequence

    def _move(self, sequence: Sequence, status: Status) -> None:
        self._queues[sequence.status].remove(sequence)
        sequence.status = status
        if status is not Status.FINISHED:
            self._queues[status].add(sequence)

    def check(self, copies: Iterable[tuple[int, int]], max_model_len: int) -> None:
        """Raises `AssertionError` unless everything that must hold between two calls does. `copies`: not yet made."""
        live = [sequence for sequences in self._live.values() for sequence in sequences.values()]
        queued = [sequence for queue in self._queues.values() for sequence in queue]
        assert len(live) == len(queued)
        assert set(live) == set(queued), "a living sequence is in no queue, or a queue holds a dead one"
        for status, queue in self._queues.items():
            assert all(sequence.status is status for sequence in queue)
            assert list(queue) == sorted(queue, key=lambda sequence: sequence.rank)
        assert len(self.running) <= self._seats
        for sequence in live:
            assert 0 <= sequence.num_computed <= sequence.num_known < max_model_len
            assert not (sequence.unforked and sequence.output_ids), "the leader answered before it forked"
        for sequence in (*self.waiting, *self.parked):
            assert sequence.num_computed == 0
            assert not sequence.block_table
        self._tables.check(live, copies)
