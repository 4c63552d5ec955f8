"""What the engine's process needs in its environment before torch is loaded."""

from __future__ import annotations

import os

PATIENT_THREADS = {"OMP_WAIT_POLICY": "PASSIVE"}
"""By default torch's OpenMP threads spin while they wait for each other. Where another process wants the same cores,
and the API process always does, the one that holds up the others is not running: on two cores with one competitor a
step took ten to twenty times as long as with threads that sleep."""


def engine_environment() -> dict[str, str]:
    """The environment for an engine process; what the user has set stays as it is."""
    return {**PATIENT_THREADS, **os.environ}


def prepare_this_process() -> None:
    """The same for this process. Has no effect once torch is imported."""
    for name, value in PATIENT_THREADS.items():
        os.environ.setdefault(name, value)
