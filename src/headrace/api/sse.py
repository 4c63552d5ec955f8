"""Server-sent events: `data: …` and a blank line, `[DONE]` at the end whatever happens."""

from __future__ import annotations

from headrace.api.streaming import BodyStream

DONE = b"data: [DONE]\n\n"


def event(body: bytes) -> bytes:
    """One event holding the JSON text `body`."""
    return b"data: " + body + b"\n\n"


class EventStream(BodyStream):
    """Each text is an event; `[DONE]` follows the last."""

    media_type = "text/event-stream"
    end = DONE

    def frame(self, body: bytes) -> bytes:
        return event(body)
