"""What `--enable-log-requests` writes of a request."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from headrace.service import Generation

logger = logging.getLogger(__name__)


class RequestLog:
    """Logs calls before they run, each prompt cut to `longest` characters or ids (None: whole)."""

    def __init__(self, *, enabled: bool, longest: int | None) -> None:
        self._enabled = enabled
        self._longest = longest

    def write(self, calls: Sequence[Generation]) -> None:
        if not self._enabled:
            return
        for call in calls:
            logger.info("request %s: prompt %r, %r", call.request_id, self._cut(call.prompt), call.sampling)

    def write_inputs(self, request_id: str, inputs: Sequence[str | Sequence[int]], asked: object) -> None:
        """As `write`, for inputs of one request of which `asked` is to be made."""
        if not self._enabled:
            return
        for given in inputs:
            logger.info("request %s: input %r, %s", request_id, self._cut(given), asked)

    def _cut(self, given: str | Sequence[int]) -> str | Sequence[int]:
        return given if self._longest is None else given[: self._longest]
