"""The clock of one request, for the metrics."""

from __future__ import annotations

import time
from collections.abc import Sequence

from headrace.core.request import FinishReason
from headrace.service.observer import FinishedRequest, RequestObserver


class RequestClock:
    """Notes when a request ran and when its tokens came, and reports once when it has ended."""

    def __init__(
        self, observer: RequestObserver, *, arrival: float, n: int, max_tokens: int | None, prompt_tokens: int
    ) -> None:
        self._observer = observer
        self._arrival = arrival
        self._n = n
        self._max_tokens = max_tokens
        self._prompt_tokens = prompt_tokens
        self._scheduled: float | None = None
        self._first_token: float | None = None
        self._last_token: list[float | None] = [None] * n
        self._reported = False

    def scheduled(self, at: float) -> None:
        """A choice first ran at `at` (monotonic seconds); the earliest counts."""
        self._scheduled = at if self._scheduled is None else min(at, self._scheduled)

    def tokens(self, choice: int, count: int) -> None:
        """`count` tokens of `choice` have just come."""
        now = time.monotonic()
        before = self._last_token[choice]
        self._last_token[choice] = now
        if before is not None:
            self._observer.inter_token(now - before, count)
        if self._first_token is None:
            self._first_token = now
            self._observer.first_token(now - self._arrival)

    def finished(
        self, reasons: Sequence[FinishReason], generation_tokens: Sequence[int], *, cached_tokens: int
    ) -> None:
        """Only the first call reports."""
        if self._reported:
            return
        self._reported = True
        last = max((at for at in self._last_token if at is not None), default=None)
        self._observer.request_finished(
            FinishedRequest(
                n=self._n,
                max_tokens=self._max_tokens,
                prompt_tokens=self._prompt_tokens,
                cached_tokens=cached_tokens,
                generation_tokens=tuple(generation_tokens),
                finish_reasons=tuple(reasons),
                queue=_between(self._arrival, self._scheduled),
                prefill=_between(self._scheduled, self._first_token),
                decode=_between(self._first_token, last),
                inference=_between(self._scheduled, last),
                e2e=time.monotonic() - self._arrival,
            )
        )


def _between(start: float | None, end: float | None) -> float | None:
    return None if start is None or end is None else max(0.0, end - start)
