"""Formats that mark each call, its arguments and its end with tokens of their own: DeepSeek V3 and V3.1, Kimi K2."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.text.source import Malformed, Reading, TextSource
from headrace.text.tools.format import Function, ToolFormat, ToolParser, long_id, numbered_id
from headrace.text.tools.json_text import copy_object
from headrace.text.tools.tags import WriteTags, json_tags, numbered_tags
from headrace.text.tools.writer import CallWriter, GrammarParser

_DEEPSEEK = ("<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>")
_DEEPSEEK_CALL = "<｜tool▁call▁begin｜>"
_DEEPSEEK_SEPARATOR = "<｜tool▁sep｜>"
_DEEPSEEK_CALL_END = "<｜tool▁call▁end｜>"

_KIMI = ("<|tool_calls_section_begin|>", "<|tool_calls_section_end|>")
_KIMI_CALL = "<|tool_call_begin|>"


def _format(
    section: tuple[str, str],
    opening: str,
    call: Callable[[TextSource, CallWriter], Reading[None]],
    tags: WriteTags,
    new_id: Callable[[str, int], str] = long_id,
) -> ToolFormat:
    """`section` stands around all calls and says nothing by itself, `opening` before each."""

    def answer(source: TextSource, writer: CallWriter) -> Reading[None]:
        while (marker := (yield from source.until(*section, opening, emit=writer.content))) is not None:
            if marker == opening:
                yield from writer.attempt(call(source, writer))

    def parser(functions: Sequence[Function]) -> ToolParser:
        return GrammarParser(answer)

    return ToolFormat(
        parser=parser,
        openings=(section[0], opening),
        special_tokens=True,
        new_id=new_id,
        tags=tags,
        trigger=opening,
    )


def _fenced_call(source: TextSource, writer: CallWriter) -> Reading[None]:
    """`function<｜tool▁sep｜>f`, and the arguments in a fenced block."""
    yield from source.take_until(_DEEPSEEK_SEPARATOR)
    writer.begin((yield from source.take_until("```json")).strip())
    yield from source.skip_space()
    yield from copy_object(source, writer.arguments)
    writer.end()
    yield from source.skip_space()
    yield from source.choose("```")
    yield from source.skip_space()
    yield from source.choose(_DEEPSEEK_CALL_END)


def _plain_call(source: TextSource, writer: CallWriter) -> Reading[None]:
    """`f<｜tool▁sep｜>{…}`."""
    writer.begin((yield from source.take_until(_DEEPSEEK_SEPARATOR)).strip())
    yield from source.skip_space()
    yield from copy_object(source, writer.arguments)
    writer.end()
    yield from source.skip_space()
    yield from source.choose(_DEEPSEEK_CALL_END)


def _kimi_call(source: TextSource, writer: CallWriter) -> Reading[None]:
    """`functions.f:0<|tool_call_argument_begin|>{…}`: what stands first is the id."""
    call_id = (yield from source.take_until("<|tool_call_argument_begin|>")).strip()
    name, colon, _ = call_id.rpartition(":")
    if not colon:
        raise Malformed
    yield from source.skip_space()
    writer.begin(name.removeprefix("functions."), call_id)
    yield from copy_object(source, writer.arguments)
    writer.end()
    yield from source.skip_space()
    yield from source.choose("<|tool_call_end|>")


DEEPSEEK_V3 = _format(
    _DEEPSEEK,
    _DEEPSEEK_CALL,
    _fenced_call,
    json_tags(f"{_DEEPSEEK_CALL}function{_DEEPSEEK_SEPARATOR}{{name}}\n```json\n", f"\n```{_DEEPSEEK_CALL_END}"),
)
DEEPSEEK_V31 = _format(
    _DEEPSEEK,
    _DEEPSEEK_CALL,
    _plain_call,
    json_tags(f"{_DEEPSEEK_CALL}{{name}}{_DEEPSEEK_SEPARATOR}", _DEEPSEEK_CALL_END),
)
KIMI_K2 = _format(
    _KIMI,
    _KIMI_CALL,
    _kimi_call,
    numbered_tags(f"{_KIMI_CALL}functions.{{name}}:", "<|tool_call_argument_begin|>", "<|tool_call_end|>"),
    new_id=numbered_id,
)
