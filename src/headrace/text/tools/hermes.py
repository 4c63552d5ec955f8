"""Hermes, Qwen 2.5 and 3, Granite 4: `<tool_call>{"name": …, "arguments": {…}}</tool_call>`, once a call."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.text.source import Reading, TextSource
from headrace.text.tools.call_object import read_call
from headrace.text.tools.format import Function, ToolFormat, ToolParser
from headrace.text.tools.tags import json_tags
from headrace.text.tools.writer import CallWriter, GrammarParser

_OPEN = "<tool_call>"
_CLOSE = "</tool_call>"


def _parser(functions: Sequence[Function]) -> ToolParser:
    return GrammarParser(lambda source, writer: _answer(source, writer, _OPEN, _CLOSE))


def _answer(source: TextSource, writer: CallWriter, opening: str, closing: str) -> Reading[None]:
    while (yield from source.until(opening, emit=writer.content)) is not None:
        yield from writer.attempt(_call(source, writer, closing))


def _call(source: TextSource, writer: CallWriter, closing: str) -> Reading[None]:
    yield from source.skip_space()
    yield from read_call(source, writer)
    yield from source.skip_space()
    yield from source.choose(closing)  # which a model may forget


HERMES = ToolFormat(
    parser=_parser,
    openings=(_OPEN,),
    special_tokens=True,
    tags=json_tags('<tool_call>\n{"name": "{name}", "arguments": ', "}\n</tool_call>"),
    trigger=_OPEN,
)

_FUNCTION_CALL = "<function_call>"

GRANITE_20B = ToolFormat(
    parser=lambda functions: GrammarParser(
        lambda source, writer: _answer(source, writer, _FUNCTION_CALL, "<|end_of_text|>")
    ),
    openings=(_FUNCTION_CALL,),
    special_tokens=True,
    tags=json_tags('<function_call> {"name": "{name}", "arguments": ', "}"),
    trigger=_FUNCTION_CALL,
)
"""Granite 20B function calling: `<function_call> {…}`, without an end."""

_PLUGIN = "<|action_start|><|plugin|>"

INTERNLM = ToolFormat(
    parser=lambda functions: GrammarParser(lambda source, writer: _answer(source, writer, _PLUGIN, "<|action_end|>")),
    openings=(_PLUGIN,),
    special_tokens=True,
    tags=json_tags('<|action_start|><|plugin|>{"name": "{name}", "parameters": ', "}<|action_end|>"),
    trigger=_PLUGIN,
)
"""InternLM 2: `<|action_start|><|plugin|>{"name": …, "parameters": {…}}<|action_end|>`."""
