"""The body of a request; `api/record.py` says what all bodies have in common."""

from __future__ import annotations

from headrace.api.sampling import SamplingFields


class LegacyRequest(SamplingFields):
    """POST /generate. Every key but these is a sampling parameter, by the name that `SamplingParams` gives it."""

    prompt: str
    stream: bool = False
