"""What a model thinks before it answers: the markers of each family, and the parser that takes the thoughts out."""

from headrace.text.reasoning.format import ReasoningFormat, thinking_at_end
from headrace.text.reasoning.parser import ReasoningParser, SplitText
from headrace.text.reasoning.registry import REASONING_FORMATS, reasoning_format

__all__ = [
    "REASONING_FORMATS",
    "ReasoningFormat",
    "ReasoningParser",
    "SplitText",
    "reasoning_format",
    "thinking_at_end",
]
