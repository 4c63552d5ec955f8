"""Tool calls in the text of an answer: one module for each way in which models write them.

parser = tool_format("hermes").parser([Function("f")])
parser.push('<tool_call>{"name": "f", "arguments": {}}'), parser.finish()
"""

from headrace.text.tools.events import CallArguments, CallBegun, CallBroken, ContentText, ToolEvent
from headrace.text.tools.format import Function, ToolFormat, ToolParser, long_id
from headrace.text.tools.registry import TOOL_FORMATS, tool_format
from headrace.text.tools.required import named_parser, named_schema, required_parser, required_schema

__all__ = [
    "TOOL_FORMATS",
    "CallArguments",
    "CallBegun",
    "CallBroken",
    "ContentText",
    "Function",
    "ToolEvent",
    "ToolFormat",
    "ToolParser",
    "long_id",
    "named_parser",
    "named_schema",
    "required_parser",
    "required_schema",
    "tool_format",
]
