"""Work that ends when the caller goes away."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from fastapi import Request, Response
from starlette.types import Receive

T = TypeVar("T")

CLOSED_REQUEST = 499
"""Status of an answer that nobody is left to read; only the access log and the metrics see it."""


class CallerGone(Exception):
    """The connection was closed before the answer was complete."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`; it is cancelled, and `CallerGone` raised, if the connection closes first.

    The request's body must have been read: what follows it on `receive` is only the end of the connection.
    """
    task = asyncio.ensure_future(work)
    closed = asyncio.ensure_future(_closed(receive))
    try:
        await asyncio.wait((task, closed), return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise CallerGone
    finally:
        task.cancel()
        closed.cancel()
        await asyncio.gather(task, closed, return_exceptions=True)


async def answer_nobody(_: Request, __: Exception) -> Response:
    """FastAPI's handler for `CallerGone`."""
    return Response(status_code=CLOSED_REQUEST)


async def _closed(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
