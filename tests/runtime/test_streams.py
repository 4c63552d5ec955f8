"""What a reader of a request sees, and what the engine is told."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from headrace.core.errors import EngineDead
from headrace.core.request import FinishReason, Request, SequenceOutput, StepOutput, StepStats
from headrace.core.sampling import TokenSampling
from headrace.runtime.streams import Streams


class Bench:
    """Streams, and the aborts they send."""

    def __init__(self) -> None:
        self.aborts: list[tuple[str, int | None]] = []
        self.streams = Streams(lambda request_id, choice: self.aborts.append((request_id, choice)))

    def open(self, name: str = "a", n: int = 1):
        sampling = TokenSampling(temperature=1.0, seed=0, max_tokens=10)
        return self.streams.open(Request(request_id=name, prompt_ids=[1], sampling=sampling, n=n))

    def deliver(self, *outputs: SequenceOutput) -> None:
        self.streams.deliver(StepOutput(list(outputs), StepStats()))


def token(token_id: int, choice: int = 0, *, name: str = "a", end: bool = False) -> SequenceOutput:
    return SequenceOutput(name, choice, [token_id], finish_reason=FinishReason.STOP if end else None)


def on_loop(test: Callable[[Bench], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        async def bounded() -> None:
            async with asyncio.timeout(5):
                await test(Bench())

        asyncio.run(bounded())

    run.__name__ = test.__name__
    return run


@on_loop
async def test_it_yields_what_arrived_since_and_ends_with_the_last_choice(bench: Bench) -> None:
    stream = bench.open(n=2)
    bench.deliver(token(1), token(2, 1))
    bench.deliver(token(3, end=True))
    assert [output.token_ids for output in await anext(stream)] == [[1], [2], [3]]
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    assert not waiting.done()
    bench.deliver(token(4, 1, end=True))
    assert [output.token_ids for output in await waiting] == [[4]]
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    assert stream.finished
    stream.close()
    assert bench.aborts == []


@on_loop
async def test_what_comes_after_an_end_or_for_strangers_is_dropped(bench: Bench) -> None:
    stream = bench.open()
    bench.deliver(token(1, end=True), token(2, end=True), token(3, name="stranger"))
    bench.deliver(token(4))
    assert [output.token_ids async for outputs in stream for output in outputs] == [[1]]


@on_loop
async def test_leaving_aborts_what_still_runs_and_only_that(bench: Bench) -> None:
    async with bench.open(n=2) as stream:
        bench.deliver(token(1, end=True))
        await anext(stream)
    stream.close()
    assert bench.aborts == [("a", None)]
    bench.deliver(token(2, 1))
    with pytest.raises(StopAsyncIteration):
        await anext(stream)
    bench.open("a")  # the id is free again


@on_loop
async def test_one_choice_is_aborted_and_the_others_go_on(bench: Bench) -> None:
    stream = bench.open(n=2)
    stream.abort(0)
    stream.abort(0)
    bench.deliver(token(1), token(2, 1))
    assert [output.choice for output in await anext(stream)] == [1]
    waiting = asyncio.create_task(anext(stream))
    await asyncio.sleep(0)
    stream.abort(1)
    with pytest.raises(StopAsyncIteration):
        await waiting
    assert bench.aborts == [("a", 0), ("a", 1)]


@on_loop
async def test_what_arrived_before_the_engine_died_is_still_delivered(bench: Bench) -> None:
    stream, done = bench.open(), bench.open("done")
    bench.deliver(token(1), token(5, name="done", end=True))
    bench.streams.fail_all(EngineDead("gone"))
    assert [output.token_ids for output in await anext(stream)] == [[1]]
    for _ in range(2):
        with pytest.raises(EngineDead, match="gone"):
            await anext(stream)
    stream.abort(0)
    stream.close()
    assert bench.aborts == []
    assert [output.token_ids async for outputs in done for output in outputs] == [[5]]


@on_loop
async def test_an_id_in_use_is_refused(bench: Bench) -> None:
    stream = bench.open()
    with pytest.raises(ValueError, match="'a' is in use"):
        bench.open()
    bench.deliver(token(1, end=True))
    assert len(await anext(stream)) == 1
