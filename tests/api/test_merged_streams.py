"""Several streams as one."""

from __future__ import annotations

import asyncio

import pytest

from headrace.api.merge import MergedStreams, collect
from headrace.core.request import FinishReason
from headrace.service import Delta


class Stream:
    """Deltas, then an error or the end. `n` choices."""

    n = 1

    def __init__(self, *texts: str, error: Exception | None = None, endless: bool = False) -> None:
        self._texts = texts
        self._error = error
        self._endless = endless
        self.left = False

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.left = True

    async def __aiter__(self):
        for text in self._texts:
            await asyncio.sleep(0)
            yield Delta(0, text, [1], [])
        if self._endless:
            await asyncio.Event().wait()
        if self._error is not None:
            raise self._error
        yield Delta(0, "", [], [], FinishReason.STOP)


def test_every_delta_comes_in_the_order_of_its_stream():
    streams = [Stream(*(f"{index}{number}" for number in range(20))) for index in range(3)]

    async def scenario() -> list[str]:
        async with MergedStreams(streams) as merged:
            results = await collect(merged)
        return [choice.text for choices in results for choice in choices]

    texts = asyncio.run(scenario())
    assert texts == ["".join(f"{index}{number}" for number in range(20)) for index in range(3)]
    assert all(stream.left for stream in streams)


@pytest.mark.parametrize("others", [0, 2])
def test_one_failure_ends_all(others):
    streams = [Stream("a", error=RuntimeError("broken")), *(Stream("b", endless=True) for _ in range(others))]

    async def scenario() -> None:
        async with MergedStreams(streams) as merged:
            await collect(merged)

    with pytest.raises(RuntimeError, match="broken"):
        asyncio.run(scenario())
    assert all(stream.left for stream in streams)


def test_leaving_early_ends_all():
    streams = [Stream("a", endless=True), Stream("b", endless=True)]

    async def scenario() -> None:
        async with MergedStreams(streams) as merged:
            deltas = merged.deltas()
            await anext(deltas)
            await deltas.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    assert all(stream.left for stream in streams)
