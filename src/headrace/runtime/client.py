"""How the rest of the server talks to an engine, wherever it lives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from enum import StrEnum
from typing import Protocol

from headrace.core.errors import EngineDead
from headrace.core.pooling import PoolingOutput, PoolingRequest
from headrace.core.request import EngineInfo, Request, SequenceOutput, StepStats
from headrace.core.vocabulary import Vocabulary

StatsListener = Callable[[StepStats], None]
"""Called on the event loop after every step."""

ProgressListener = Callable[[int, int], None]
"""Called on the event loop while weights are read, with the bytes done and the bytes in all."""


class EngineState(StrEnum):
    LOADING = "loading"
    READY = "ready"
    RESTARTING = "restarting"
    DEAD = "dead"
    STOPPED = "stopped"


class RequestStream:
    """The outputs of one request as they come. Lives on the event loop; one reader.

    Iteration yields lists: everything that arrived since the last one, at least one output. It ends when all `n`
    choices have finished, and raises `EngineDead` if the engine goes away first. Leaving the `async with` block, for
    whatever reason, aborts what is still running.
    """

    def __init__(self, request: Request, abort: Callable[[str, int | None], None]) -> None:
        self._request_id = request.request_id
        self._abort = abort
        self._unfinished = set(range(request.n))
        self._pending: list[SequenceOutput] = []
        self._failure: Exception | None = None
        self._arrived = asyncio.Event()

    async def __aenter__(self) -> RequestStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.close()

    def __aiter__(self) -> RequestStream:
        return self

    async def __anext__(self) -> list[SequenceOutput]:
        while not self._pending:
            if self._failure is not None:
                raise self._failure
            if not self._unfinished:
                raise StopAsyncIteration
            self._arrived.clear()
            await self._arrived.wait()
        outputs, self._pending = self._pending, []
        return outputs

    def abort(self, choice: int) -> None:
        """End one choice early; no further output of it will be delivered."""
        if choice in self._unfinished:
            self._unfinished.discard(choice)
            self._abort(self._request_id, choice)
            self._arrived.set()

    def close(self) -> None:
        """Abort every choice that is still running."""
        if self._unfinished and self._failure is None:
            self._abort(self._request_id, None)
        self._unfinished.clear()
        self._arrived.set()

    @property
    def finished(self) -> bool:
        return not self._unfinished

    def deliver(self, output: SequenceOutput) -> None:
        """Called by the transport."""
        if output.choice not in self._unfinished:
            return
        self._pending.append(output)
        if output.finish_reason is not None:
            self._unfinished.discard(output.choice)
        self._arrived.set()

    def fail(self, error: EngineDead) -> None:
        """Called by the transport when no further output can come."""
        self._failure = error
        self._arrived.set()


class EngineClient(Protocol):
    """An engine in this process, in a child process, or elsewhere."""

    @property
    def state(self) -> EngineState: ...

    @property
    def info(self) -> EngineInfo:
        """Raises `NotReady` until the model is loaded."""
        ...

    async def start(self) -> EngineInfo:
        """Load the model. Raises `StartupError` if that is impossible."""
        ...

    def submit(self, request: Request) -> RequestStream:
        """Hand a request over to an engine that generates. Raises `NotReady` or `EngineDead`."""
        ...

    def pool(self, request: PoolingRequest) -> asyncio.Future[PoolingOutput]:
        """Hand a request over to an engine that pools; cancelling what it returns aborts it.

        Raises `NotReady` or `EngineDead`; the future raises `EngineDead` if the engine goes away first.
        """
        ...

    def learn(self, vocabulary: Vocabulary) -> None:
        """What requests with a grammar are held against; to be called once, before the first of them is submitted."""
        ...

    async def stop(self) -> None:
        """Abort what is running, free the model and end."""
        ...
