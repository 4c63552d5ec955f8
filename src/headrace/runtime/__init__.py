"""Where an engine lives, and how to talk to it. Nothing here imports torch; the engine is imported where it runs."""

from headrace.runtime.client import EngineClient, EngineState, ProgressListener, RequestStream, StatsListener
from headrace.runtime.local import LocalEngine
from headrace.runtime.process import ProcessEngine

__all__ = [
    "EngineClient",
    "EngineState",
    "LocalEngine",
    "ProcessEngine",
    "ProgressListener",
    "RequestStream",
    "StatsListener",
]
