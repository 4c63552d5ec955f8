"""An end to the polls of a client that does not take CANCELLED for one: the `stream()` of Runpod's Python SDK."""

from __future__ import annotations

from headrace.api.runpod.wire import StreamReply, stream_reply
from headrace.jobs import JobStatus, StreamPage

_MOST_REMEMBERED = 10_000


class CancelledStreams:
    """Tells the truth about a cancelled job once, and FAILED to whoever asks again: every client knows that word.

    What was told is known to this server alone, and not for ever: at worst the truth is told once more.
    """

    def __init__(self) -> None:
        self._told: dict[str, None] = {}  # in the order of telling

    def reply(self, page: StreamPage) -> StreamReply:
        """As `stream_reply`."""
        if page.chunks or page.status is not JobStatus.CANCELLED:
            return stream_reply(page)
        if page.job.id in self._told:
            return StreamReply(JobStatus.FAILED, [], "cancelled")
        self._told[page.job.id] = None
        if len(self._told) > _MOST_REMEMBERED:
            del self._told[next(iter(self._told))]
        return stream_reply(page)
