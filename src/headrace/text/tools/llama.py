"""Llama 3 and 4: `{"name": …, "parameters": {…}}` as the whole answer, or anywhere behind `<|python_tag|>`.

Several follow each other, with `;` between them or without.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.text.source import Reading, TextSource
from headrace.text.tools.call_object import read_call
from headrace.text.tools.format import Function, ToolFormat, ToolParser
from headrace.text.tools.tags import json_tags
from headrace.text.tools.writer import CallWriter, GrammarParser

_TAG = "<|python_tag|>"


def _parser(functions: Sequence[Function]) -> ToolParser:
    known = frozenset(function.name for function in functions)
    return GrammarParser(lambda source, writer: _answer(source, writer, known))


def _answer(source: TextSource, writer: CallWriter, known: frozenset[str]) -> Reading[None]:
    source.mark()
    if (yield from source.skip_space()) == "{":
        # Nothing but its content shows that this object is a call and no answer in JSON.
        yield from writer.attempt(_calls(source, writer, known))
    else:
        writer.content(source.since_mark())
        source.release()
    while (yield from source.until(_TAG, emit=writer.content)) is not None:
        yield from writer.attempt(_calls(source, writer, None))


def _calls(source: TextSource, writer: CallWriter, known: frozenset[str] | None) -> Reading[None]:
    while True:
        yield from source.skip_space()
        yield from read_call(source, writer, known)
        source.mark()
        yield from source.skip_space()
        yield from source.choose(";")
        if (yield from source.skip_space()) == "":
            return


LLAMA_JSON = ToolFormat(
    parser=_parser,
    openings=(_TAG,),
    special_tokens=True,
    tags=json_tags('{"name": "{name}", "parameters": ', "}"),
    trigger='{"name": "',
)
