"""The streams of several prompts as one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, aclosing
from dataclasses import dataclass, field

from headrace.core.request import FinishReason
from headrace.service import Delta, PositionLogprobs
from headrace.service.generation import GenerationStream


class MergedStreams:
    """Deltas of all `streams` as they come, each with the index of its prompt.

    The first stream that fails ends the whole with its error. Leaving the `async with` aborts what still runs.
    """

    def __init__(self, streams: Sequence[GenerationStream]) -> None:
        self.streams = streams
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> MergedStreams:
        for stream in self.streams:
            await self._stack.enter_async_context(stream)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self._stack.aclose()

    def abort(self) -> None:
        """End what still runs; unlike leaving, the reader hears of it as of any other ending."""
        for stream in self.streams:
            stream.abort()

    async def deltas(self) -> AsyncGenerator[tuple[int, Delta], None]:
        if len(self.streams) == 1:
            async for delta in self.streams[0]:
                yield 0, delta
            return
        arrived: asyncio.Queue[tuple[int, Delta | Exception | None]] = asyncio.Queue(maxsize=len(self.streams))
        pumps = [asyncio.create_task(_pump(index, stream, arrived)) for index, stream in enumerate(self.streams)]
        try:
            running = len(pumps)
            while running:
                index, item = await arrived.get()
                if item is None:
                    running -= 1
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield index, item
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def chunks(
        self, write: Callable[[AsyncIterator[tuple[int, Delta]]], AsyncIterator[bytes]]
    ) -> AsyncGenerator[bytes, None]:
        """The deltas as `write` frames them."""
        async with aclosing(self.deltas()) as deltas:
            async for chunk in write(deltas):
                yield chunk


async def _pump(
    index: int, stream: GenerationStream, arrived: asyncio.Queue[tuple[int, Delta | Exception | None]]
) -> None:
    try:
        async for delta in stream:
            await arrived.put((index, delta))
        await arrived.put((index, None))
    except Exception as error:
        await arrived.put((index, error))


@dataclass(slots=True)
class WholeChoice:
    """One choice, complete."""

    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    logprobs: list[PositionLogprobs] = field(default_factory=list)
    finish_reason: FinishReason | None = None
    stop_reason: int | str | None = None


async def collect(merged: MergedStreams) -> list[list[WholeChoice]]:
    """Every choice of every prompt, once all have ended; index them by prompt, then by choice."""
    wholes = [[WholeChoice() for _ in range(stream.n)] for stream in merged.streams]
    texts: dict[tuple[int, int], list[str]] = {}
    async with aclosing(merged.deltas()) as deltas:
        async for prompt, delta in deltas:
            whole = wholes[prompt][delta.choice]
            texts.setdefault((prompt, delta.choice), []).append(delta.text)
            whole.token_ids += delta.token_ids
            whole.logprobs += delta.logprobs
            if delta.finish_reason is not None:
                whole.finish_reason, whole.stop_reason = delta.finish_reason, delta.stop_reason
    for (prompt, choice), pieces in texts.items():
        wholes[prompt][choice].text = "".join(pieces)
    return wholes
