"""Who runs: every step lets computed tokens catch up with known tokens, under one budget. There are no phases, so
chunked prefill, prefix-cache hits, forks and recomputation after preemption are all the same path.

Why every request ends. All sequences stand in one order, their rank, and blocks and seats are only ever taken from a
higher rank for a lower one. So nothing is taken from the lowest that runs, and the pool is large enough for a sequence
of any length alone: it computes at least one token in every step until it ends. Nobody is admitted past the lowest
that waits, so it gets what those that end leave behind.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from headrace.core.errors import BadRequest, ConfigError, ContextOverflow
from headrace.core.request import FinishReason, Request, SequenceOutput, StepOutput, StepStats
from headrace.schedule.block_tables import BlockTables
from headrace.schedule.plan import PlanRow, RowResult, StepPlan, StepResult
from headrace.schedule.queue import SequenceQueue
from headrace.schedule.rows import check_result, plan_row, sequence_output
from headrace.schedule.sequence import Sequence, Status
from headrace.schedule.stopping import ending


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
        for name, value, least in (
            ("num_blocks", num_blocks, 1),
            ("block_size", block_size, 1),
            ("max_num_seqs", max_num_seqs, 1),
            ("max_num_batched_tokens", max_num_batched_tokens, 1),
            ("max_model_len", max_model_len, 2),
        ):
            if value < least:
                raise ConfigError(f"{name} must be at least {least}, got {value}.")
        if policy not in ("fcfs", "priority"):
            raise ConfigError(f'policy must be "fcfs" or "priority", got {policy!r}.')
        if num_blocks * block_size < max_model_len:
            raise ConfigError(
                f"The KV cache holds {num_blocks * block_size} tokens ({num_blocks} blocks of {block_size}), which is "
                f"less than max_model_len={max_model_len}: give it more memory or lower max_model_len."
            )
        self._tables = BlockTables(num_blocks, block_size, enable_prefix_caching=enable_prefix_caching)
        self._block_size = block_size
        self._seats = min(max_num_seqs, max_num_batched_tokens)
        self._max_num_batched_tokens = max_num_batched_tokens
        self._max_model_len = max_model_len
        self._by_priority = policy == "priority"
        self._clock = clock
        self._waiting = SequenceQueue()
        self._running = SequenceQueue()
        self._live: dict[str, dict[int, Sequence]] = {}
        self._next_serial = 0
        self._in_flight: _Step | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    @property
    def stats(self) -> StepStats:
        """The state between steps, in which nothing is computed."""
        return StepStats(running=len(self._running), waiting=len(self._waiting), kv_usage=self._tables.usage)

    def add(self, request: Request) -> None:
        """Queue a request. Raises `BadRequest` if its id is in use or nothing can ever come of it."""
        prompt_len = len(request.prompt_ids)
        if request.request_id in self._live:
            raise BadRequest(
                f"request_id {request.request_id!r} is in use by a request that has not ended.",
                parameter="request_id",
                value=request.request_id,
            )
        if request.n < 1:
            raise BadRequest(f"n must be at least 1, got {request.n}.", parameter="n", value=request.n)
        if prompt_len == 0:
            raise BadRequest("The prompt must have at least 1 token.", parameter="prompt")
        if prompt_len >= self._max_model_len:
            raise ContextOverflow(
                f"The prompt has {prompt_len} tokens; the context of {self._max_model_len} tokens leaves room for "
                f"at most {self._max_model_len - 1} and one of output.",
                parameter="prompt",
            )
        owes_logprobs = request.sampling.prompt_logprobs is not None and prompt_len > 1
        leader = Sequence(
            request=request,
            choice=0,
            rank=(request.priority if self._by_priority else 0, request.arrival_time, self._next_serial, 0),
            unforked=list(range(1, request.n)),
            prompt_logprobs_from=1 if owes_logprobs else None,
        )
        self._next_serial += 1
        self._live[request.request_id] = {0: leader}
        self._waiting.add(leader)

    def abort(self, request_id: str, choice: int | None = None) -> list[SequenceOutput]:
        """End one choice of a request, or all, and free their blocks. What has already ended is ignored."""
        sequences = list(self._live.get(request_id, {}).values())
        if choice is None:
            return [output for sequence in sequences for output in self._end(sequence, FinishReason.ABORT)]
        for sequence in sequences:
            if choice in sequence.unforked:
                sequence.unforked.remove(choice)
                return [SequenceOutput(request_id, choice, finish_reason=FinishReason.ABORT)]
            if choice == sequence.choice:
                if sequence.unforked:
                    self._hand_over(sequence)
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
        copies: list[tuple[int, int]] = []
        for sequence in list(self._running):
            while sequence.status is Status.RUNNING and not self._tables.grow(sequence, copies):
                self._preempt(self._running.last, step)
        return copies

    def _admit(self, step: _Step) -> None:
        """Let waiting sequences run, in rank order; the first that cannot makes the others wait behind it."""
        while self._waiting:
            newcomer = self._waiting.first
            ahead = sum(other.num_uncomputed for other in self._running if other.rank < newcomer.rank)
            if ahead >= self._max_num_batched_tokens:
                return
            cached = self._tables.find_cached(newcomer)
            victims = self._make_way(newcomer, cached)
            if victims is None:
                return
            for victim in victims:
                self._preempt(victim, step)
            self._tables.admit(newcomer, cached)
            newcomer.num_computed = len(cached) * self._block_size
            newcomer.status = Status.RUNNING
            self._waiting.remove(newcomer)
            self._running.add(newcomer)
            if newcomer.num_cached is None:
                newcomer.num_cached = newcomer.num_computed
                if self._tables.reads_cache(newcomer):
                    step.prefix_queries += newcomer.num_known
                    step.prefix_hits += newcomer.num_cached

    def _make_way(self, newcomer: Sequence, cached: list[int]) -> list[Sequence] | None:
        """The running sequences to preempt so that there is a seat and blocks for `newcomer`: the fewest, highest ranks
        first. None if it has to wait; changes nothing.
        """
        victims: list[Sequence] = []
        candidates = reversed(self._running)
        while len(self._running) - len(victims) >= self._seats or not self._tables.fits(newcomer, cached, victims):
            victim = next(candidates, None)
            # Within a priority class nobody is preempted for a newcomer, a fork that comes late included.
            if victim is None or victim.rank[0] <= newcomer.rank[0]:
                return None
            victims.append(victim)
        return victims

    def _share_budget(self, step: _Step) -> list[PlanRow]:
        """Rows for the running sequences, as far as the budget goes. Those with one token to compute come first, so a
        long prefill never holds up a decode; the others get what is left, in rank order.
        """
        budget = self._max_num_batched_tokens
        rows = []
        for sequence in sorted(self._running, key=_has_chunk):
            count = min(sequence.num_uncomputed, budget)
            if count == 0:
                break
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
                outputs += self._end(sequence, FinishReason.ERROR, row_result.error)
                continue
            prompt_tokens += min(len(row.token_ids), max(0, sequence.prompt_len - row.start))
            output = self._advance(sequence, row, row_result)
            if output is not None:
                generation_tokens += len(output.token_ids)
                outputs.append(output)
        return StepOutput(outputs, self._stats(step, prompt_tokens, generation_tokens))

    def fail(self, plan: StepPlan, error: str) -> StepOutput:
        """The step raised: end its sequences with ERROR. Others live on, and nothing that the step may have left half
        written can be found again, because blocks enter the prefix index only in `commit`.
        """
        step = self._land(plan)
        alive = [sequence for sequence in step.sequences if sequence.status is not Status.FINISHED]
        outputs = [output for sequence in alive for output in self._end(sequence, FinishReason.ERROR, error)]
        return StepOutput(outputs, self._stats(step, 0, 0))

    def _land(self, plan: StepPlan) -> _Step:
        step = self._in_flight
        if step is None or step.plan is not plan:
            raise RuntimeError("This plan is not the one under way: it was not the last, or has been applied before.")
        self._in_flight = None
        self._tables.copied(plan.block_copies)
        return step

    def _advance(self, sequence: Sequence, row: PlanRow, result: RowResult) -> SequenceOutput | None:
        stop = row.start + len(row.token_ids)
        sequence.num_computed = stop
        self._tables.index(sequence, row.start, stop)
        if sequence.prompt_logprobs_from is not None:
            owed = max(sequence.prompt_logprobs_from, stop + 1)
            sequence.prompt_logprobs_from = owed if owed < sequence.prompt_len else None
        if result.token_id is None:
            return self._tell(sequence, result) if result.prompt_logprobs else None
        if sequence.unforked:
            self._fork(sequence)
        sequence.output_ids.append(result.token_id)
        end = ending(sequence, self._max_model_len)
        if end is not None:
            self._retire(sequence)
        return self._tell(sequence, result, *(end or (None, None)))

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

    def _stats(self, step: _Step, prompt_tokens: int, generation_tokens: int) -> StepStats:
        return StepStats(
            running=len(self._running),
            waiting=len(self._waiting),
            kv_usage=self._tables.usage,
            prompt_tokens=prompt_tokens,
            generation_tokens=generation_tokens,
            prefix_queries=step.prefix_queries,
            prefix_hits=step.prefix_hits,
            preemptions=step.preemptions,
            seconds=self._clock() - step.started,
        )

    # ---- changes of a sequence's state

    def _fork(self, leader: Sequence) -> None:
        """Start the other choices, now that the prompt is computed. Each recomputes only the prompt's last token, to
        sample its own first one. Those without a seat wait, and find the prompt in the prefix cache when they run.
        """
        live = self._live[leader.request.request_id]
        for choice in leader.unforked:
            sibling = live[choice] = leader.fork(choice)
            sibling.num_cached = 0  # the leader has told what the request found in the cache
            if len(self._running) < self._seats:
                self._tables.fork(leader, sibling)
                sibling.num_computed = sibling.prompt_len - 1
                sibling.status = Status.RUNNING
                self._running.add(sibling)
            else:
                self._waiting.add(sibling)
        leader.unforked = []

    def _hand_over(self, leader: Sequence) -> None:
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
        self._live[leader.request.request_id][choice] = heir
        self._queue_of(heir).add(heir)

    def _preempt(self, sequence: Sequence, step: _Step) -> None:
        """Take a running sequence's blocks; it keeps its tokens and computes them again later. Its rank puts it ahead
        of everything that has waited so far.
        """
        self._running.remove(sequence)
        self._tables.release(sequence)
        sequence.num_computed = 0
        sequence.status = Status.WAITING
        self._waiting.add(sequence)
        step.preemptions += 1

    def _end(self, sequence: Sequence, reason: FinishReason, error: str | None = None) -> list[SequenceOutput]:
        """End a sequence from outside, and with it the choices that wait for its prompt."""
        unforked, sequence.unforked = sequence.unforked, []
        self._retire(sequence)
        request_id = sequence.request.request_id
        return [
            self._tell(sequence, RowResult(error=error), reason),
            *(SequenceOutput(request_id, choice, finish_reason=reason, error=error) for choice in unforked),
        ]

    def _retire(self, sequence: Sequence) -> None:
        self._queue_of(sequence).remove(sequence)
        self._tables.release(sequence)
        sequence.status = Status.FINISHED
        live = self._live[sequence.request.request_id]
        del live[sequence.choice]
        if not live:
            del self._live[sequence.request.request_id]

    def _queue_of(self, sequence: Sequence) -> SequenceQueue:
        return self._running if sequence.status is Status.RUNNING else self._waiting

    def check(self) -> None:
        """Raises `AssertionError` unless everything that must hold between two calls does."""
        running, waiting = list(self._running), list(self._waiting)
        live = [sequence for choices in self._live.values() for sequence in choices.values()]
        assert len(live) == len(running) + len(waiting)
        assert set(live) == {*running, *waiting}, "a living sequence is in no queue, or a queue holds a dead one"
        assert all(sequence.status is Status.RUNNING for sequence in running)
        assert all(sequence.status is Status.WAITING for sequence in waiting)
        assert len(running) <= self._seats
        for queue in (running, waiting):
            assert queue == sorted(queue, key=lambda sequence: sequence.rank)
        for sequence in live:
            assert 0 <= sequence.num_computed < sequence.num_known < self._max_model_len
            assert not (sequence.unforked and sequence.output_ids), "the leader answered before it forked"
        for sequence in waiting:
            assert sequence.num_computed == 0
            assert not sequence.block_table
        copies = self._in_flight.plan.block_copies if self._in_flight is not None else []
        self._tables.check(live, copies)


def _has_chunk(sequence: Sequence) -> bool:
    return sequence.num_uncomputed > 1
