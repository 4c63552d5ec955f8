"""Newline-delimited JSON."""

from __future__ import annotations

from headrace.api.streaming import BodyStream


class JsonLines(BodyStream):
    """Each text is a line; nothing follows the last."""

    media_type = "application/x-ndjson"
    end = b""

    def frame(self, body: bytes) -> bytes:
        return body + b"\n"
