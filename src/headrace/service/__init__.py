"""What a user can ask for, free of any protocol: text and conversations in, deltas of text and tokens out.

async with await generator.start(Generation(...)) as stream:
    async for delta in stream: ...
"""

from headrace.service.generation import Generator
from headrace.service.observer import FinishedRequest, PooledRequest, RequestObserver
from headrace.service.pooling_types import Encoding, Pooled, Pooling, Scores, Scoring
from headrace.service.served_model import ServedModel
from headrace.service.services import EngineState, Services
from headrace.service.stream import GenerationStream
from headrace.service.types import Beam, Conversation, Delta, Generation, Message, PositionLogprobs, TokenChoice

__all__ = [
    "Beam",
    "Conversation",
    "Delta",
    "Encoding",
    "EngineState",
    "FinishedRequest",
    "Generation",
    "GenerationStream",
    "Generator",
    "Message",
    "Pooled",
    "PooledRequest",
    "Pooling",
    "PositionLogprobs",
    "RequestObserver",
    "Scores",
    "Scoring",
    "ServedModel",
    "Services",
    "TokenChoice",
]
