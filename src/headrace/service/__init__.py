"""What a user can ask for, free of any protocol: text and conversations in, deltas of text and tokens out.

    generator.start(Generation(...)) -> GenerationStream -> Delta, Delta, …
"""

from headrace.service.observer import FinishedRequest, RequestObserver
from headrace.service.services import Services
from headrace.service.types import Conversation, Delta, Generation, Message, PositionLogprobs, TokenChoice

__all__ = [
    "Conversation",
    "Delta",
    "FinishedRequest",
    "Generation",
    "Message",
    "PositionLogprobs",
    "RequestObserver",
    "Services",
    "TokenChoice",
]
