"""Threads for work that would hold up the event loop: tokenizing, templates, text for many log-probabilities."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_MOST_THREADS = 4


class Workers:
    """A bounded pool. What is submitted beyond its threads waits in order."""

    def __init__(self, name: str) -> None:
        threads = min(_MOST_THREADS, os.cpu_count() or 1)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=name)

    async def run(self, function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """Call `function` in a thread. If the caller is cancelled, a call that has begun runs on unheard."""
        return await asyncio.wrap_future(self._pool.submit(function, *args, **kwargs))

    def close(self) -> None:
        """Forget what has not begun; do not wait for the rest."""
        self._pool.shutdown(wait=False, cancel_futures=True)
