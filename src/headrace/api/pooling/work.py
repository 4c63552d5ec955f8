"""A request that is answered as a whole, and can be ended by its id."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from typing import Any, Generic, TypeVar

from fastapi import Request

from headrace.api.disconnect import CLOSED_REQUEST, while_connected
from headrace.api.live import LiveRequests
from headrace.core.errors import CallerError

T = TypeVar("T")


class Aborted(CallerError):
    """Somebody ended the request by its id."""

    status = CLOSED_REQUEST


class Work(Generic[T]):
    """What has to be done for one answer. It ends when its block is left."""

    def __init__(self, work: Coroutine[Any, Any, T]) -> None:
        self._work = work
        self._task: asyncio.Task[Any] | None = None
        self._aborted = False

    async def __aenter__(self) -> Work[T]:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self._work.close()

    async def result(self) -> T:
        """To be awaited once. Raises `Aborted`."""
        self._task = asyncio.current_task()
        try:
            return await self._work
        except asyncio.CancelledError:
            if self._aborted:
                raise Aborted("The request was aborted.") from None
            raise

    def abort(self) -> None:
        if self._task is not None:
            self._aborted = True
            self._task.cancel()


async def answered(http: Request, live: LiveRequests, ids: Sequence[str], work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which ends early if the caller goes away or one of `ids` is aborted."""
    running = Work(work)
    async with live.tracked(ids, running):
        return await while_connected(http.receive, running.result())
