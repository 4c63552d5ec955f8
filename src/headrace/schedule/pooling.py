"""Who runs next on a model that pools. A request is one sequence and runs whole, in one step; nothing of it is kept.

Requests run in the order of their rank, and nobody is passed over: a step takes from the front of the queue what its
budget holds. So the first in rank is in the next step, and every request ends.
"""

from __future__ import annotations

import time
from bisect import bisect_left, insort
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from operator import attrgetter

from headrace.core.errors import BadRequest, ConfigError, ContextOverflow
from headrace.core.pooling import PoolingOutput, PoolingRequest
from headrace.core.request import StepOutput, StepStats

_rank = attrgetter("rank")


@dataclass(frozen=True, slots=True)
class PoolingPlan:
    """The requests of a step, at least one."""

    requests: tuple[PoolingRequest, ...]


@dataclass(frozen=True, slots=True)
class PooledRow:
    """What the step made of one request: the numbers of `PoolingOutput`, or what failed."""

    shape: list[int]
    data: bytes
    error: str | None = None


@dataclass(frozen=True, slots=True)
class _Waiting:
    request: PoolingRequest
    rank: tuple[int, float, int]


@dataclass(frozen=True, slots=True)
class _Step:
    plan: PoolingPlan
    started: float


class PoolingScheduler:
    """Plans steps and says what came of them: `plan`, run it, `commit` or `fail`, one step at a time. `add` and `abort`
    may come at any moment between these calls, also while a step is under way.

    A step has at most `max_num_seqs` requests and `max_num_batched_tokens` tokens, where the tokens of each count as a
    multiple of `block_size` (what a decoder's memory is given out in); a longer request runs alone. `policy` and
    `clock` are those of `Scheduler`. Raises `ConfigError` for values that make no sense.
    """

    def __init__(
        self,
        *,
        max_num_seqs: int,
        max_num_batched_tokens: int,
        max_model_len: int,
        policy: str,
        block_size: int = 1,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        sizes = {
            "max_num_seqs": max_num_seqs,
            "max_num_batched_tokens": max_num_batched_tokens,
            "max_model_len": max_model_len,
            "block_size": block_size,
        }
        for name, value in sizes.items():
            if value < 1:
                raise ConfigError(f"{name} must be at least 1, got {value}.")
        self._max_num_seqs = max_num_seqs
        self._max_num_batched_tokens = max_num_batched_tokens
        self._max_model_len = max_model_len
        self._block_size = block_size
        self._by_priority = policy == "priority"
        self._clock = clock
        self._waiting: list[_Waiting] = []
        self._live: dict[str, _Waiting] = {}
        self._next_serial = 0
        self._in_flight: _Step | None = None

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    @property
    def stats(self) -> StepStats:
        """The state between steps. As none of its requests outlives a step, those of the next one count as running."""
        running = self._fitting()
        return StepStats(running=running, waiting=len(self._waiting) - running)

    def add(self, request: PoolingRequest) -> None:
        """Queue a request. Raises `BadRequest` if its id is in use or it can never run."""
        self._check(request)
        priority = request.priority if self._by_priority else 0
        entry = _Waiting(request, (priority, request.arrival_time, self._next_serial))
        self._next_serial += 1
        self._live[request.request_id] = entry
        insort(self._waiting, entry, key=_rank)

    def abort(self, request_id: str) -> None:
        """Forget a request, also one that is being run. One that has ended is ignored."""
        entry = self._live.pop(request_id, None)
        if entry is None:
            return
        place = bisect_left(self._waiting, entry.rank, key=_rank)
        if place < len(self._waiting) and self._waiting[place] is entry:
            del self._waiting[place]

    def plan(self) -> PoolingPlan | None:
        """What the next step does. None if nothing waits."""
        if self._in_flight is not None:
            raise RuntimeError("plan() was called before commit() or fail() of the last plan.")
        count = self._fitting()
        if count == 0:
            return None
        plan = PoolingPlan(tuple(entry.request for entry in self._waiting[:count]))
        del self._waiting[:count]
        self._in_flight = _Step(plan, self._clock())
        return plan

    def commit(self, plan: PoolingPlan, rows: Sequence[PooledRow]) -> StepOutput:
        """End the requests of a step with what it made of them, in the plan's order. Those aborted since are dropped.

        Raises `ValueError`, and changes nothing, if the rows are not as many; `fail` can still be called.
        """
        if len(rows) != len(plan.requests):
            raise ValueError(f"a result of {len(rows)} rows does not belong to a plan of {len(plan.requests)}")
        step = self._land(plan)
        pooled = []
        prompt_tokens = 0
        for request, row in zip(plan.requests, rows, strict=True):
            entry = self._live.get(request.request_id)
            if entry is None or entry.request is not request:
                continue
            del self._live[request.request_id]
            if row.error is None:
                prompt_tokens += len(request.prompt_ids)
            pooled.append(
                PoolingOutput(
                    request_id=request.request_id,
                    shape=row.shape,
                    data=row.data,
                    error=row.error,
                    scheduled_time=step.started,
                )
            )
        seconds = self._clock() - step.started
        return StepOutput([], replace(self.stats, prompt_tokens=prompt_tokens, seconds=seconds), pooled)

    def fail(self, plan: PoolingPlan, error: str) -> StepOutput:
        """The step raised: end its requests with `error`. Others live on."""
        return self.commit(plan, [PooledRow([], b"", error)] * len(plan.requests))

    def _check(self, request: PoolingRequest) -> None:
        """Raises `BadRequest`."""
        length = len(request.prompt_ids)
        if request.request_id in self._live:
            raise BadRequest(
                f"request_id {request.request_id!r} is in use by a request that has not ended.",
                parameter="request_id",
                value=request.request_id,
            )
        if length == 0:
            raise BadRequest("The input must have at least 1 token.", parameter="input")
        if length > self._max_model_len:
            raise ContextOverflow(
                f"The input has {length} tokens; the model takes at most {self._max_model_len}.", parameter="input"
            )
        if request.token_type_ids is not None and len(request.token_type_ids) != length:
            raise BadRequest(
                f"token_type_ids must be as many as the tokens, {length}, got {len(request.token_type_ids)}.",
                parameter="token_type_ids",
            )

    def _fitting(self) -> int:
        """How many of those that wait, from the first on, the next step takes."""
        tokens = 0
        for count, entry in enumerate(self._waiting[: self._max_num_seqs]):
            tokens += -(-len(entry.request.prompt_ids) // self._block_size) * self._block_size
            if count and tokens > self._max_num_batched_tokens:
                return count
        return min(len(self._waiting), self._max_num_seqs)

    def _land(self, plan: PoolingPlan) -> _Step:
        step = self._in_flight
        if step is None or step.plan is not plan:
            raise RuntimeError("This plan is not the one under way: it was not the last, or has been applied before.")
        self._in_flight = None
        return step

    def check(self) -> None:
        """Raises `AssertionError` unless everything that must hold between two calls does."""
        ranks = [entry.rank for entry in self._waiting]
        assert ranks == sorted(set(ranks))
        assert all(self._live.get(entry.request.request_id) is entry for entry in self._waiting)
        planned = self._in_flight.plan.requests if self._in_flight is not None else ()
        entries = [self._live.get(request.request_id) for request in planned]
        running = [entry for entry, request in zip(entries, planned, strict=True) if entry and entry.request is request]
        assert len(self._live) == len(self._waiting) + len(running)
