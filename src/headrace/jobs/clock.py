"""The time of the job store."""

from __future__ import annotations

import time
from collections.abc import Callable

Clock = Callable[[], int]
"""Milliseconds since the Unix epoch. Servers that share a store must agree on it to a small part of the lease."""


def system_clock() -> int:
    return time.time_ns() // 1_000_000
