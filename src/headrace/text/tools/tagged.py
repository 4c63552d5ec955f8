"""Formats that write each argument between tags of its own: Qwen 3 Coder, GLM 4.5, MiniMax M2, Seed.

Which JSON a value is, its function's schema says. Texts are told as they arrive, other values once they are complete.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from headrace.text.source import EndOfText, Malformed, Reading, TextSource
from headrace.text.tools.format import Function, ToolFormat, ToolParser
from headrace.text.tools.schema_values import is_string, json_value
from headrace.text.tools.tags import WriteTags, argument_tags
from headrace.text.tools.writer import CallWriter, Grammar, GrammarParser

Functions = Mapping[str, Function]


def _format(grammar: Callable[[Functions], Grammar], *openings: str, tags: WriteTags) -> ToolFormat:
    def parser(functions: Sequence[Function]) -> ToolParser:
        return GrammarParser(grammar({function.name: function for function in functions}))

    return ToolFormat(parser=parser, openings=openings, special_tokens=True, tags=tags, trigger=openings[0])


class _Arguments:
    """Writes a call's arguments one by one."""

    def __init__(self, source: TextSource, writer: CallWriter, function: Function | None) -> None:
        self._source = source
        self._writer = writer
        self._function = function
        self._count = 0

    def read(self, name: str, closing: str, *, own_lines: bool) -> Reading[None]:
        """Read a value and `closing` behind it. `own_lines`: a line break on either side is not part of the value."""
        source, writer = self._source, self._writer
        if own_lines:
            yield from source.choose("\r\n", "\n")
        lead = ", " if self._count else "{"
        if is_string(self._function, name):
            writer.arguments(f'{lead}{json.dumps(name, ensure_ascii=False)}: "')
            # The line break is part of the end, where there is one, and so is held back with it.
            ends = (f"\r\n{closing}", f"\n{closing}", closing) if own_lines else (closing,)
            yield from source.copy_until(*ends, emit=self._write_text)
            writer.arguments('"')
        else:
            text = yield from source.take_until(closing)
            if own_lines:
                text = text.removesuffix("\n").removesuffix("\r")
            value = json_value(text, self._function, name)
            writer.arguments(f"{lead}{json.dumps(name, ensure_ascii=False)}: {value}")
        self._count += 1

    def end(self) -> None:
        self._writer.arguments("}" if self._count else "{}")
        self._writer.end()

    def _write_text(self, text: str) -> None:
        self._writer.arguments(json.dumps(text, ensure_ascii=False)[1:-1])


def _function_calls(opening: str, closing: str) -> Callable[[Functions], Grammar]:
    """`<function=f><parameter=a>…</parameter></function>` inside `opening` and `closing`, which may be left out."""

    def grammar(functions: Functions) -> Grammar:
        def answer(source: TextSource, writer: CallWriter) -> Reading[None]:
            while (marker := (yield from source.until(opening, "<function=", emit=writer.content))) is not None:
                yield from writer.attempt(call(source, writer, marker))

        def call(source: TextSource, writer: CallWriter, marker: str) -> Reading[None]:
            if marker == opening:
                yield from source.skip_space()
                yield from source.expect("<function=")
            name = (yield from source.take_until(">")).strip()
            writer.begin(name)
            arguments = _Arguments(source, writer, functions.get(name))
            while True:
                yield from source.skip_space()
                if (yield from source.expect("<parameter=", "</function>")) == "</function>":
                    break
                argument = (yield from source.take_until(">")).strip()
                yield from arguments.read(argument, "</parameter>", own_lines=True)
            arguments.end()
            yield from source.skip_space()
            yield from source.choose(closing)

        return answer

    return grammar


def _glm(functions: Functions) -> Grammar:
    """`<tool_call>f<arg_key>a</arg_key><arg_value>…</arg_value></tool_call>`, white space anywhere between the tags."""

    def answer(source: TextSource, writer: CallWriter) -> Reading[None]:
        while (yield from source.until("<tool_call>", emit=writer.content)) is not None:
            yield from writer.attempt(call(source, writer))

    def call(source: TextSource, writer: CallWriter) -> Reading[None]:
        name = ""
        while (sign := (yield from source.choose("<arg_key>", "</tool_call>"))) is None:
            character = yield from source.peek()
            if character == "":
                raise EndOfText
            if character == "<":
                raise Malformed
            name += yield from source.expect(character)
        writer.begin(name := name.strip())
        arguments = _Arguments(source, writer, functions.get(name))
        while sign == "<arg_key>":
            argument = (yield from source.take_until("</arg_key>")).strip()
            yield from source.skip_space()
            yield from source.expect("<arg_value>")
            yield from arguments.read(argument, "</arg_value>", own_lines=False)
            yield from source.skip_space()
            sign = yield from source.expect("<arg_key>", "</tool_call>")
        arguments.end()

    return answer


def _minimax(functions: Functions) -> Grammar:
    """`<minimax:tool_call><invoke name="f"><parameter name="a">…</parameter></invoke></minimax:tool_call>`."""
    opening, closing = "<minimax:tool_call>", "</minimax:tool_call>"

    def answer(source: TextSource, writer: CallWriter) -> Reading[None]:
        while (yield from source.until(opening, emit=writer.content)) is not None:
            yield from writer.attempt(calls(source, writer))

    def calls(source: TextSource, writer: CallWriter) -> Reading[None]:
        yield from source.skip_space()
        sign = yield from source.expect('<invoke name="')
        while sign != closing:
            yield from call(source, writer)
            if (yield from source.skip_space()) == "":
                return
            source.mark()
            sign = yield from source.expect('<invoke name="', closing)

    def call(source: TextSource, writer: CallWriter) -> Reading[None]:
        name = yield from source.take_until('">')
        writer.begin(name)
        arguments = _Arguments(source, writer, functions.get(name))
        while True:
            yield from source.skip_space()
            if (yield from source.expect('<parameter name="', "</invoke>")) == "</invoke>":
                break
            argument = yield from source.take_until('">')
            yield from arguments.read(argument, "</parameter>", own_lines=False)
        arguments.end()

    return answer


def _function_tags(opening: str, closing: str) -> WriteTags:
    return argument_tags(
        f"{opening}\n<function={{name}}>\n", "<parameter={name}>\n", "\n</parameter>\n", f"</function>\n{closing}"
    )


QWEN3_CODER = _format(
    _function_calls("<tool_call>", "</tool_call>"),
    *("<tool_call>", "<function="),
    tags=_function_tags("<tool_call>", "</tool_call>"),
)
SEED = _format(
    _function_calls("<seed:tool_call>", "</seed:tool_call>"),
    *("<seed:tool_call>", "<function="),
    tags=_function_tags("<seed:tool_call>", "</seed:tool_call>"),
)
GLM45 = _format(
    _glm,
    "<tool_call>",
    tags=argument_tags(
        "<tool_call>{name}\n", "<arg_key>{name}</arg_key>\n<arg_value>", "</arg_value>\n", "</tool_call>"
    ),
)
MINIMAX_M2 = _format(
    _minimax,
    "<minimax:tool_call>",
    tags=argument_tags(
        '<minimax:tool_call>\n<invoke name="{name}">\n',
        '<parameter name="{name}">',
        "</parameter>\n",
        "</invoke>\n</minimax:tool_call>",
    ),
)
