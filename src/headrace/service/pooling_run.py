"""The way of inputs through the engine, from their admission to what came of them."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator, Sequence

from headrace.config.sections import LimitsConfig
from headrace.core.errors import EngineError
from headrace.core.pooling import PoolingOutput, PoolingParams, PoolingRequest
from headrace.core.request import FinishReason
from headrace.runtime.client import EngineClient
from headrace.service.admission import Admission
from headrace.service.observer import PooledRequest, RequestObserver
from headrace.service.pooling_types import OnProgress, Pooled, Pooling, PreparedInput, Scoring

_MOST_IN_FLIGHT = 256
"""Inputs of one request that the engine has at a time, so that a request that comes later need not wait for all."""


class PoolingIntake:
    """Admits the inputs of a request and has the engine pool them."""

    def __init__(self, engine: EngineClient, limits: LimitsConfig, observer: RequestObserver | None) -> None:
        self._engine = engine
        self._observer = observer
        self._admission = Admission(limits, observer)
        self._numbers = itertools.count()

    async def run(
        self,
        inputs: Sequence[PreparedInput],
        params: PoolingParams,
        call: Pooling | Scoring,
        on_progress: OnProgress | None = None,
    ) -> list[Pooled]:
        """What came of each. Leaving early, by cancellation or with an error, ends all of them.

        Raises `Overloaded`, `EngineError` for the first input that fails, `NotReady` or `EngineDead`.
        """
        [ticket] = self._admission.admit([(len(inputs), sum(len(each.ids) for each in inputs))])
        name = f"{call.request_id}-{next(self._numbers)}"

        def done(index: int, count: int) -> None:
            ticket.started(index)
            if on_progress is not None:
                on_progress(count, len(inputs))

        run = _Run(self._engine, inputs, params, name=name, priority=call.priority, done=done)
        reason = FinishReason.ABORT
        try:
            outputs = await run.outputs()
            reason = FinishReason.STOP
        except Exception:
            reason = FinishReason.ERROR
            raise
        finally:
            ticket.close()
            if self._observer is not None:
                self._observer.request_pooled(run.report(reason))
        return [Pooled(each.ids, output.shape, output.data) for each, output in zip(inputs, outputs, strict=True)]


class _Run:
    """The inputs of one request: a number of them at a time is in the engine.

    `done` is called with an input's index, and with how many have been done so far.
    """

    def __init__(
        self,
        engine: EngineClient,
        inputs: Sequence[PreparedInput],
        params: PoolingParams,
        *,
        name: str,
        priority: int,
        done: Callable[[int, int], None],
    ) -> None:
        self._engine = engine
        self._inputs = inputs
        self._params = params
        self._name = name
        self._priority = priority
        self._done = done
        self._arrival = time.monotonic()
        self._outputs: dict[int, PoolingOutput] = {}

    async def outputs(self) -> list[PoolingOutput]:
        numbered = iter(enumerate(self._inputs))
        if len(self._inputs) == 1:
            await self._lane(numbered)
        else:
            count = min(_MOST_IN_FLIGHT, len(self._inputs))
            lanes = [asyncio.ensure_future(self._lane(numbered)) for _ in range(count)]
            try:
                await asyncio.gather(*lanes)
            finally:
                for lane in lanes:
                    lane.cancel()
        return [self._outputs[index] for index in range(len(self._inputs))]

    async def _lane(self, numbered: Iterator[tuple[int, PreparedInput]]) -> None:
        """One input after another, of those that no other lane has taken."""
        for index, each in numbered:
            output = await self._engine.pool(
                PoolingRequest(
                    request_id=f"{self._name}-{index}",
                    prompt_ids=each.ids,
                    params=self._params,
                    token_type_ids=each.type_ids,
                    priority=self._priority,
                    arrival_time=time.monotonic(),
                )
            )
            if output.error is not None:
                raise EngineError(f"Input {index} could not be processed: {output.error}")
            self._outputs[index] = output
            self._done(index, len(self._outputs))

    def report(self, reason: FinishReason) -> PooledRequest:
        now = time.monotonic()
        times = (output.scheduled_time for output in self._outputs.values())
        first = min((at for at in times if at is not None), default=None)
        return PooledRequest(
            prompt_tokens=tuple(len(each.ids) for each in self._inputs),
            finish_reason=reason,
            queue=None if first is None else max(0.0, first - self._arrival),
            inference=None if first is None else max(0.0, now - first),
            e2e=now - self._arrival,
        )
