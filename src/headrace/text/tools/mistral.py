"""Mistral: `[TOOL_CALLS]f[ARGS]{…}` once a call, or, of older tokenizers, `[TOOL_CALLS][{"name": …, "arguments": …}]`.

Between name and arguments some write the call's id: `f[CALL_ID]abc123xyz[ARGS]{…}`.
"""

from __future__ import annotations

from collections.abc import Sequence

from headrace.text.source import Malformed, Reading, TextSource
from headrace.text.tools.call_object import read_calls
from headrace.text.tools.format import Function, ToolFormat, ToolParser, short_id
from headrace.text.tools.json_text import copy_object
from headrace.text.tools.tags import json_tags
from headrace.text.tools.writer import CallWriter, GrammarParser

_OPEN = "[TOOL_CALLS]"
_ARGS = "[ARGS]"
_CALL_ID = "[CALL_ID]"


def _parser(functions: Sequence[Function]) -> ToolParser:
    return GrammarParser(_answer)


def _answer(source: TextSource, writer: CallWriter) -> Reading[None]:
    while (yield from source.until(_OPEN, emit=writer.content)) is not None:
        yield from writer.attempt(_calls(source, writer))


def _calls(source: TextSource, writer: CallWriter) -> Reading[None]:
    if (yield from source.skip_space()) == "[":
        yield from read_calls(source, writer)
        return
    name, sign = yield from _name(source)
    call_id = None
    if sign == _CALL_ID:
        call_id = (yield from source.take_until(_ARGS)).strip() or None
    yield from source.skip_space()
    writer.begin(name, call_id)
    yield from copy_object(source, writer.arguments)
    writer.end()


def _name(source: TextSource) -> Reading[tuple[str, str | None]]:
    """The name, and the marker behind it, which is read. Some leave `[ARGS]` out: then nothing of the `{` is read."""
    name = ""
    while True:
        match (yield from source.peek()):
            case "[":
                return name.strip(), (yield from source.expect(_ARGS, _CALL_ID))
            case "{":
                return name.strip(), None
            case "\n":
                raise Malformed
            case character:
                name += yield from source.expect(character or _ARGS)


MISTRAL = ToolFormat(
    parser=_parser,
    openings=(_OPEN,),
    special_tokens=True,
    new_id=short_id,
    tags=json_tags("[TOOL_CALLS]{name}[ARGS]", ""),
    trigger=_OPEN,
)
