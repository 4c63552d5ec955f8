"""Bucket borders of the histograms, those of vLLM's dashboards (contract, section 8)."""

from __future__ import annotations

FIRST_TOKEN = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
)
"""Seconds to a request's first token."""

BETWEEN_TOKENS = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0),
)
"""Seconds between two tokens."""

WHOLE_REQUEST = (
    *(0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0),
    *(120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0),
)
"""Seconds of a request, or of one of its phases."""

GRAMMAR_MASK = (1e-5, 2e-5, 5e-5, 1e-4, 2e-4, 5e-4, 1e-3, 2e-3, 5e-3, 0.01, 0.02, 0.05, 0.1)
"""Seconds per token to find the tokens that a grammar allows."""

CHOICES = (1.0, 2.0, 5.0, 10.0, 20.0)
STEP_TOKENS = tuple(float(1 << power) for power in (0, *range(3, 15)))
HTTP_SECONDS = (0.1, 0.5, 1.0)
HTTP_SECONDS_FINE = (
    *(0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0, 4.5),
    *(5.0, 7.5, 10.0, 30.0, 60.0),
)


def token_counts(limit: int) -> tuple[float, ...]:
    """1, 2, 5, 10, 20, 50, … as far as `limit`."""
    borders: list[float] = []
    decade = 1
    while True:
        for digit in (1, 2, 5):
            if digit * decade > limit:
                return tuple(borders)
            borders.append(float(digit * decade))
        decade *= 10
