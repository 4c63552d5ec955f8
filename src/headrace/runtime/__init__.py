"""Where an engine lives, and how to talk to it. Nothing here imports torch; the engine is imported where it runs."""

from headrace.runtime.client import EngineClient, EngineState, ProgressListener, RequestStream, StatsListener
from headrace.runtime.host import EngineHost
from headrace.runtime.hosted import HostedEngine
from headrace.runtime.local import LocalEngine

__all__ = [
    "EngineClient",
    "EngineHost",
    "EngineState",
    "HostedEngine",
    "LocalEngine",
    "ProgressListener",
    "RequestStream",
    "StatsListener",
]
