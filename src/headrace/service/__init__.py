"""What a user can ask for, free of any protocol: text and conversations in, deltas of text and tokens out.

async with await generator.start(Generation(...)) as stream:
    async for delta in stream: ...
"""

from headrace.service.generation import Generator
from headrace.service.observer import FinishedRequest, RequestObserver
from headrace.service.services import EngineState, Services
from headrace.service.stream import GenerationStream
from headrace.service.types import Beam, Conversation, Delta, Generation, Message, PositionLogprobs, TokenChoice

__all__ = [
    "Beam",
    "Conversation",
    "Delta",
    "EngineState",
    "FinishedRequest",
    "Generation",
    "GenerationStream",
    "Generator",
    "Message",
    "PositionLogprobs",
    "RequestObserver",
    "Services",
    "TokenChoice",
]
