"""Formats that write all calls as one JSON array behind a marker: Granite 3, Jamba, Phi 4 mini."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.text.source import Reading, TextSource
from headrace.text.tools.call_object import read_calls
from headrace.text.tools.format import Function, ToolFormat, ToolParser
from headrace.text.tools.tags import list_tag
from headrace.text.tools.writer import CallWriter, GrammarParser


def _format(*openings: str, closing: str = "") -> ToolFormat:
    def parser(functions: Sequence[Function]) -> ToolParser:
        return GrammarParser(lambda source, writer: _answer(source, writer, openings, closing))

    return ToolFormat(
        parser=parser,
        openings=openings,
        special_tokens=True,
        tags=list_tag(openings[0], closing),
        trigger=openings[0],
    )


def _answer(source: TextSource, writer: CallWriter, openings: tuple[str, ...], closing: str) -> Reading[None]:
    while (yield from source.until(*openings, emit=writer.content)) is not None:
        yield from writer.attempt(_calls(source, writer, closing))


def _calls(source: TextSource, writer: CallWriter, closing: str) -> Reading[None]:
    yield from source.skip_space()
    yield from read_calls(source, writer)
    if closing:
        yield from source.skip_space()
        yield from source.choose(closing)


GRANITE = _format("<|tool_call|>", "<tool_call>")
JAMBA = _format("<tool_calls>", closing="</tool_calls>")
PHI4_MINI = _format("functools")
