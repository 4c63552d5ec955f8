"""Threads for what takes its time before a server can answer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from functools import partial
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")


def in_thread(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> asyncio.Future[T]:
    """What `function` returns or raises. Unlike a pool's threads, this one keeps no process from ending."""
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[T] = loop.create_future()

    def settle(how: Callable[[], None]) -> None:
        if not outcome.done():
            how()

    def work() -> None:
        try:
            how = partial(outcome.set_result, function(*args, **kwargs))
        except BaseException as problem:
            how = partial(outcome.set_exception, problem)
        with contextlib.suppress(RuntimeError):  # the loop has ended, and nobody waits any more
            loop.call_soon_threadsafe(settle, how)

    threading.Thread(target=work, daemon=True).start()
    return outcome
