"""Limits on how often and how many at a time, per endpoint and operation. The operator sets them, or there are none."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from headrace.api.runpod.errors import RateLimited

WINDOW_SECONDS = 10.0


class RateLimits:
    """Counts requests. `rates`: most requests of an operation in any 10 seconds; `concurrent`: most at a time.

    An operation that is in neither is free.
    """

    def __init__(
        self,
        rates: Mapping[str, int],
        concurrent: Mapping[str, int],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rates = rates
        self._concurrent = concurrent
        self._clock = clock
        self._times: dict[tuple[str, str], deque[float]] = {}
        self._running: dict[tuple[str, str], int] = {}

    @contextmanager
    def admit(self, endpoint: str, operation: str) -> Iterator[None]:
        """For as long as one request is answered. Raises `RateLimited`."""
        key = endpoint, operation
        running = self._running.get(key, 0)
        if running >= self._concurrent.get(operation, math.inf):
            raise RateLimited(f"Too many requests to {operation} at a time.", retry_after=1)
        self._count(key)
        self._running[key] = running + 1
        try:
            yield
        finally:
            self._running[key] -= 1

    def _count(self, key: tuple[str, str]) -> None:
        operation = key[1]
        if (most := self._rates.get(operation)) is None:
            return
        now = self._clock()
        times = self._times.setdefault(key, deque())
        while times and times[0] <= now - WINDOW_SECONDS:
            times.popleft()
        if len(times) >= most:
            wait = times[0] + WINDOW_SECONDS - now if times else WINDOW_SECONDS
            raise RateLimited(
                f"More than {most} requests to {operation} in {WINDOW_SECONDS:g} seconds.",
                retry_after=max(1, math.ceil(wait)),
            )
        times.append(now)
