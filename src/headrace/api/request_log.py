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
            prompt = call.prompt if self._longest is None else call.prompt[: self._longest]
            logger.info("request %s: prompt %r, %r", call.request_id, prompt, call.sampling)
