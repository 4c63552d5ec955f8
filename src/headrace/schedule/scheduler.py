"""Who runs: every step lets computed tokens catch up with known tokens, under one budget. There are no phases, so
chunked prefill, prefix-cache hits, forks and recomputation after preemption are all the same path.

Why every request ends. All sequences stand in one order, their rank, and blocks and seats are only ever taken from a
higher rank for a lower one. So nothing is taken from the lowest that runs, and the pool is large enough for a sequence
of any length alone: it computes at least one token in every step until it ends. Nobody is admitted past the lowest
that waits, so it gets what those that end leave behind.

A beam rests from the step that finds its continuations until all beams of its search have theirs. It computes nothing
and so frees nothing; therefore it gives way, whatever its rank, to any other beam of its search, as well as to all that
rank before it. Leave out those that rest, and the argument above holds for the lowest of the others: it computes until
it rests in its turn or ends. Each time the last beam of a search would come to rest, all of them get another token
instead. So a search of many beams needs no more than one seat, and blocks for one beam.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from headrace.core.errors import BadRequest, ConfigError
from headrace.core.request import FinishReason, Request, SequenceOutput, StepOutput, StepStats
from headrace.schedule.beam_search import Continuation
from headrace.schedule.block_tables import BlockTables
from headrace.schedule.plan import PlanRow, RowResult, StepPlan, StepResult
from headrace.schedule.roster import Roster
from headrace.schedule.rows import check_result, plan_row, sequence_output
from headrace.schedule.search import Search
from headrace.schedule.sequence import Sequence, Status
from headrace.schedule.stopping import ending
from headrace.schedule.validation import check_request, check_sizes

if TYPE_CHECKING:
    from headrace.grammar.state import GrammarState


@dataclass(slots=True)
class _Step:
    """A step from `plan` to `commit`: its plan, the sequences behind the plan's rows, and what planning it did."""

    started: float
    plan: StepPlan = field(default_factory=lambda: StepPlan([]))
    sequences: list[Sequence] = field(default_factory=list)
    prefix_queries: int = 0
    prefix_hits: int = 0
    preemptions: int = 0


class Scheduler:
    """Plans steps and applies their results. It alone changes sequences; tokens are only ever added by `commit`.

    Call `plan`, run it, call `commit` (or `fail`), and so on: one step at a time. `add` and `abort` may come at any
    moment between these calls, also while a step is under way.

    `num_blocks` blocks of `block_size` tokens must hold `max_model_len` tokens. At most `max_num_seqs` sequences run
    at once, and never more than `max_num_batched_tokens`: each that runs can then have a token in every step, so that
    decodes cannot starve a prefill. `policy` is "fcfs" (rank by arrival) or "priority" (rank by the request's
    priority, lower first, then by arrival); only the latter preempts to admit. `clock` returns seconds.
    Raises `ConfigError` for values that make no sense.
    """

    def __init__(
        self,
        *,
        num_blocks: int,
        block_size: int,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        enable_prefix_caching: bool,
        policy: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        check_sizes(
            num_blocks=num_blocks,
            block_size=block_size,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max_num_batched_tokens,
            max_model_len=max_model_len,
        )
        if policy not in ("fcfs", "priority"):
            raise ConfigError(f'policy must be "fcfs" or "priority", got {policy!r}.')
        self._tables = BlockTables(num_blocks, block_size, enable_prefix_caching=enable_prefix_caching)
        self._block_size = block_size
        self._roster = Roster(self._tables, min(max_num_seqs, max_num_batched_tokens))
        self._max_num_batched_tokens = max_num_batched_tokens
        self._max_model_len = max_model_len
        self._by_priority = policy == "priority"
        self._clock = clock
        self._searches: dict[str, Search] = {}
        self._next_serial = 0
        self._in_flight: _Step | None = None

    @property
    def has_work(self) -> bool:
        return not self._roster.is_empty

    @property
    def stats(self) -> StepStats:
        """The state between steps, in which nothing is computed."""
        return StepStats(
            running=len(self._roster.running), waiting=self._roster.num_waiting, kv_usage=self._tables.usage
        )

    def add(self, request: Request, grammar: GrammarState | None = None) -> None:
        """Queue a request. Raises `BadRequest` if its id is in use or nothing can ever come of it.

        `grammar` is where an answer begins that has to follow the request's.
        """
        if request.request_id in self._roster:
            raise BadRequest(
                f"request_id {request.request_id!r} is in use by a request that has not ended.",
                parameter="request_id",
                value=request.request_id,
            )
        check_request(request, self._max_model_len)
        search = None
        if request.beam is not None:
            search = Search(request, request.beam, self._max_model_len)
            request = search.request
        owes_logprobs = request.sampling.prompt_logprobs is not None and len(request.prompt_ids) > 1
        leader = Sequence(
            request=request,
            choice=0,
            rank=(request.priority if self._by_priority else 0, request.arrival_time, self._next_serial, 0),
            unforked=[] if search is not None else list(range(1, request.n)),
            prompt_logprobs_from=1 if owes_logprobs else None,
            grammar=grammar,
        )
        self._next_serial += 1
        if search is not None:
            search.start(leader)
            self._searches[request.request_id] = search
        self._roster.enter(leader)

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        """End one choice of a request, or all, and free their blocks. What has already ended is ignored."""
        if (search := self._searches.get(request_id)) is not None:
            return self._abort_search(search, choice)
        sequences = self._roster.live(request_id)
        if choice is None:
            return [output for sequence in sequences for output in self._end(sequence, FinishReason.ABORT)]
        for sequence in sequences:
            if choice in sequence.unforked:
                sequence.unforked.remove(choice)
                return [SequenceOutput(request_id, choice, finish_reason=FinishReason.ABORT)]
            if choice == sequence.choice:
                if sequence.unforked:
                    self._roster.hand_over(sequence)
                return self._end(sequence, FinishReason.ABORT)
        return []

    # ---- plan

    def plan(self) -> StepPlan | None:
        """What the next step does. None if no sequence lives."""
        if self._in_flight is not None:
            raise RuntimeError("plan() was called before commit() or fail() of the last plan.")
        step = _Step(started=self._clock())
        copies = self._grow(step)
        self._admit(step)
        rows = self._share_budget(step)
        if not rows:
            return None
        step.plan = StepPlan(rows, copies)
        self._in_flight = step
        return step.plan

    def _grow(self, step: _Step) -> list[tuple[int, int]]:
        """Give running sequences the blocks that their next tokens need, preempting from the last while there are
        none. Returns the block copies to make.
        """
        running = self._roster.running
        copies: list[tuple[int, int]] = []
        for sequence in list(running):
            while sequence.status is Status.RUNNING and not self._tables.grow(sequence, copies):
                self._preempt(running.last, step)
        return copies

    def _admit(self, step: _Step) -> None:
        """Let waiting sequences run, in rank order; the first that cannot makes the others wait behind it."""
        roster = self._roster
        while roster.waiting:
            newcomer = roster.waiting.first
            ahead = sum(other.num_uncomputed for other in roster.running if other.rank < newcomer.rank)
            if ahead >= self._max_num_batched_tokens:
                return
            cached = self._tables.find_cached(newcomer)
            victims = roster.make_way(newcomer, cached, self._resting())
            if victims is None:
                return
            for victim in victims:
                self._preempt(victim, step)
            roster.run(newcomer, cached)
            newcomer.num_computed = len(cached) * self._block_size
            if newcomer.num_cached is None:
                newcomer.num_cached = newcomer.num_computed
                if self._tables.reads_cache(newcomer):
                    step.prefix_queries += newcomer.num_known
                    step.prefix_hits += newcomer.num_cached

    def _resting(self) -> list[Sequence]:
        """The beams that rest and have a place to give up, last in rank first."""
        beams = [beam.sequence for search in self._searches.values() for beam in search.beams]
        resting = [beam for beam in beams if beam.status is Status.RUNNING and beam.rests]
        return sorted(resting, key=lambda beam: beam.rank, reverse=True)

    def _preempt(self, sequence: Sequence, step: _Step) -> None:
        """Its rank puts it ahead of everything that has waited so far."""
        self._roster.preempt(sequence)
        step.preemptions += 1

    def _share_budget(self, step: _Step) -> list[PlanRow]:
        """Rows for the running sequences, as far as the budget goes. Those with one token to compute come first, so a
        long prefill never holds up a decode; the others get what is left, in rank order.
        """
        budget = self._max_num_batched_tokens
        rows = []
        for sequence in sorted(self._roster.running, key=_has_chunk):
            if budget == 0:
                break
            count = min(sequence.num_uncomputed, budget)
            if count == 0:
                continue  # a beam that rests
            budget -= count
            if sequence.scheduled_time is None:
                sequence.scheduled_time = step.started
            step.sequences.append(sequence)
            rows.append(plan_row(sequence, count, self._block_size))
        return rows

    # ---- commit

    def commit(self, plan: StepPlan, result: StepResult) -> StepOutput:
        """Apply a step's result: the only place a sequence grows. Rows whose sequence has ended since are dropped.

        Raises `ValueError`, and changes nothing, if the result does not belong to the plan; `fail` can still be called.
        """
        check_result(plan, result)
        step = self._land(plan)
        outputs: list[SequenceOutput] = []
        prompt_tokens = generation_tokens = 0
        for row, sequence, row_result in zip(plan.rows, step.sequences, result.rows, strict=True):
            if sequence.status is Status.FINISHED:
                continue
            if row_result.error is not None:
                outputs += self._end(sequence, FinishReason.ERROR, row_result.error, refused=row_result.refused)
                continue
            prompt_tokens += min(len(row.token_ids), max(0, sequence.prompt_len - row.start))
            generation_tokens += row.samples
            outputs += self._advance(sequence, row, row_result)
        return StepOutput(outputs, self._stats(step, prompt_tokens, generation_tokens, result.mask_seconds))

    def fail(self, plan: StepPlan, error: str) -> StepOutput:
        """The step raised: end its sequences with ERROR. Others live on, and nothing that the step may have left half
        written can be found again, because blocks enter the prefix index only in `commit`.
        """
        step = self._land(plan)
        outputs = [output for sequence in step.sequences for output in self._end(sequence, FinishReason.ERROR, error)]
        return StepOutput(outputs, self._stats(step, 0, 0))

    def _land(self, plan: StepPlan) -> _Step:
        step = self._in_flight
        if step is None or step.plan is not plan:
            raise RuntimeError("This plan is not the one under way: it was not the last, or has been applied before.")
        self._in_flight = None
        self._tables.copied(plan.block_copies)
        return step

    def _advance(self, sequence: Sequence, row: PlanRow, result: RowResult) -> list[SequenceOutput]:
        stop = row.start + len(row.token_ids)
        sequence.num_computed = stop
        self._tables.index(sequence, row.start, stop)
        if sequence.prompt_logprobs_from is not None:
            owed = max(sequence.prompt_logprobs_from, stop + 1)
            sequence.prompt_logprobs_from = owed if owed < sequence.prompt_len else None
        if (search := self._searches.get(row.request_id)) is not None:
            return self._advance_search(search, sequence, result)
        if result.token_id is None:
            return [self._tell(sequence, result)] if result.prompt_logprobs else []
        if sequence.unforked:
            self._fork(sequence)
        sequence.output_ids.append(result.token_id)
        if sequence.grammar is not None and not sequence.grammar.advance(result.token_id):
            self._roster.retire(sequence)
            problem = f"The answer cannot follow its grammar any further: {sequence.grammar.problem}"
            left = replace(result, error=problem, refused=True)
            return [self._tell(sequence, left, FinishReason.ERROR)]
        end = ending(sequence, self._max_model_len)
        if end is not None:
            self._roster.retire(sequence)
        return [self._tell(sequence, result, *(end or (None, None)))]

    def _fork(self, leader: Sequence) -> None:
        """Start the other choices, now that the prompt is computed. Each recomputes only the prompt's last token, to
        sample its own first one.
        """
        for choice in leader.unforked:
            self._roster.fork(leader, choice, leader.prompt_len - 1)
        leader.unforked = []

    def _tell(
        self,
        sequence: Sequence,
        result: RowResult,
        finish_reason: FinishReason | None = None,
        stop_reason: int | None = None,
    ) -> SequenceOutput:
        output = sequence_output(sequence, result, finish_reason, stop_reason)
        sequence.announced = True
        return output

    def _stats(self, step: _Step, prompt_tokens: int, generation_tokens: int, mask_seconds: float = 0.0) -> StepStats:
        return StepStats(
            running=len(self._roster.running),
            waiting=self._roster.num_waiting,
            kv_usage=self._tables.usage,
            prompt_tokens=prompt_tokens,
            generation_tokens=generation_tokens,
            prefix_queries=step.prefix_queries,
            prefix_hits=step.prefix_hits,
            preemptions=step.preemptions,
            masked_tokens=sum(row.grammar is not None for row in step.plan.rows),
            mask_seconds=mask_seconds,
            seconds=self._clock() - step.started,
        )

    def _end(
        self, sequence: Sequence, reason: FinishReason, error: str | None = None, *, refused: bool = False
    ) -> list[SequenceOutput]:
        """End a sequence from outside, unless it has ended, and with it those that cannot go on without it: the choices
        that wait for its prompt, the other beams of its search.
        """
        if sequence.status is Status.FINISHED:
            return []
        request_id = sequence.request.request_id
        if (search := self._searches.get(request_id)) is not None:
            return self._end_search(search, search.endings(reason, error, refused=refused))
        unforked, sequence.unforked = sequence.unforked, []
        self._roster.retire(sequence)
        return [
            self._tell(sequence, RowResult(error=error, refused=refused), reason),
            *(
                SequenceOutput(request_id, choice, finish_reason=reason, error=error, refused=refused)
                for choice in unforked
            ),
        ]

    # ---- beam searches

    def _advance_search(self, search: Search, sequence: Sequence, result: RowResult) -> list[SequenceOutput]:
        """Note what follows one beam; if it was the last to be known, continue them all, or end the search."""
        outputs = []
        if not sequence.output_ids and (result.prompt_logprobs or result.logprobs is not None):
            told = self._tell(sequence, RowResult(prompt_logprobs=result.prompt_logprobs))
            outputs.append(replace(told, choice=min(search.choices)))
        if result.logprobs is None:
            return outputs
        search.offer(sequence, result.logprobs)
        if not search.is_complete:
            return outputs
        going_on = search.extend()
        if not going_on:
            return outputs + self._end_search(search, search.answers())
        self._branch(search, going_on)
        if beams := search.best():
            outputs.append(SequenceOutput(search.request.request_id, min(search.choices), beams=beams))
        return outputs

    def _branch(self, search: Search, going_on: list[Continuation]) -> None:
        """Give each continuation a sequence: a beam's first goes on in the beam's own, the others fork that and share
        its blocks. Beams without any end.
        """
        parents = [search.beams[continuation.beam].sequence for continuation in going_on]
        for beam in search.beams:
            if beam.sequence not in parents:
                self._roster.retire(beam.sequence)
        taken = {parent.choice for parent in parents}
        free = (choice for choice in range(search.width) if choice not in taken)
        heirs: list[Sequence] = []
        for parent in parents:
            is_first = parent not in heirs
            heirs.append(parent if is_first else self._roster.fork(parent, next(free), parent.num_computed))
        search.go_on(zip(going_on, heirs, strict=True))
        for sequence, continuation in zip(heirs, going_on, strict=True):
            sequence.output_ids.append(continuation.token_id)
            self._roster.wake(sequence)

    def _abort_search(self, search: Search, choice: int | None) -> list[SequenceOutput]:
        """The search goes on for the choices that are left."""
        if choice is None or search.choices == {choice}:
            return self._end_search(search, search.endings(FinishReason.ABORT))
        if choice not in search.choices:
            return []
        search.choices.remove(choice)
        return [SequenceOutput(search.request.request_id, choice, finish_reason=FinishReason.ABORT)]

    def _end_search(self, search: Search, outputs: list[SequenceOutput]) -> list[SequenceOutput]:
        del self._searches[search.request.request_id]
        for beam in search.beams:
            self._roster.retire(beam.sequence)
        return outputs

    def check(self) -> None:
        """Raises `AssertionError` unless everything that must hold between two calls does."""
        self._roster.check(
            self._in_flight.plan.block_copies if self._in_flight is not None else [], self._max_model_len
        )
        for request_id, search in self._searches.items():
            search.check(self._roster.live(request_id))
        for sequence in (*self._roster.running, *self._roster.parked):
            assert not sequence.rests or sequence.request.request_id in self._searches


def _has_chunk(sequence: Sequence) -> bool:
    return sequence.num_uncomputed > 1
