"""Waiting for a job to change without asking the store again and again."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

from headrace.jobs.transaction import Changes

_Waiting = defaultdict[str, set[asyncio.Event]]


class News:
    """Wakes those who wait for a job. Lives on the event loop.

    Both ways to wait give an event. Clear it, look at the job, then wait for it: nothing is missed.
    """

    def __init__(self) -> None:
        self._of_change: _Waiting = defaultdict(set)
        self._of_end: _Waiting = defaultdict(set)

    def of(self, job_id: str) -> contextlib.AbstractContextManager[asyncio.Event]:
        """Set whenever the job changes."""
        return _listening(self._of_change, job_id)

    def of_end(self, job_id: str) -> contextlib.AbstractContextManager[asyncio.Event]:
        """Set when the job ends, or is gone."""
        return _listening(self._of_end, job_id)

    def tell(self, changes: Changes) -> None:
        """This has been committed."""
        _set(self._of_change, changes.ids)
        _set(self._of_end, changes.ended)

    def tell_about(self, job_id: str) -> None:
        """Something of this job has changed that the store does not know of."""
        _set(self._of_change, [job_id])

    def tell_everybody(self) -> None:
        """Whatever was waited for: look again."""
        for waiting in (self._of_change, self._of_end):
            _set(waiting, list(waiting))


@contextlib.contextmanager
def _listening(waiting: _Waiting, job_id: str) -> Iterator[asyncio.Event]:
    event = asyncio.Event()
    waiting[job_id].add(event)
    try:
        yield event
    finally:
        waiting[job_id].discard(event)
        if not waiting[job_id]:
            del waiting[job_id]


def _set(waiting: _Waiting, ids: Iterable[str]) -> None:
    if not waiting:
        return
    for job_id in ids:
        for event in waiting.get(job_id, ()):
            event.set()
