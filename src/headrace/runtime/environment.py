"""What the engine's process needs in its environment before torch is loaded."""

from __future__ import annotations

import os

BOUNDED_SPIN = {"GOMP_SPINCOUNT": "3000"}
"""How often torch's OpenMP threads look before they sleep while they wait for each other: about 50 microseconds.

By default they spin for milliseconds. Where another process wants the same cores, and the API process always does, the
thread they wait for is not running: on two cores with one busy competitor a step took five to twenty times as long.
Threads that sleep at once (`OMP_WAIT_POLICY=PASSIVE`) lose 10 to 30 % on cores of their own (measured with
`headrace bench serve`).
"""


def engine_environment() -> dict[str, str]:
    """The environment for an engine process; what the user has set stays as it is."""
    return {**BOUNDED_SPIN, **os.environ}


def prepare_this_process() -> None:
    """The same for this process. Has no effect once torch is imported."""
    for name, value in BOUNDED_SPIN.items():
        os.environ.setdefault(name, value)
