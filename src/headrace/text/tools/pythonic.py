"""Calls as a list in Python, `[f(a=1), g(b="x")]`: Llama 3.2 and 4, ToolACE. Each call is told once it is complete."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection, Sequence
from typing import Any

from headrace.text.source import EndOfText, Malformed, Reading, TextSource
from headrace.text.tools.format import Function, ToolFormat, ToolParser
from headrace.text.tools.tags import keyword_tags
from headrace.text.tools.writer import CallWriter, GrammarParser

_START = "<|python_start|>"
_END = "<|python_end|>"
_NAME = re.compile(r"[\w.]*")
_ORDINARY = re.compile(r"""[^"'()\[\]{}]*""")
_CLOSING = {"(": ")", "[": "]", "{": "}"}
_JSON_NAMES = {"true": True, "false": False, "null": None}


def _parser(functions: Sequence[Function]) -> ToolParser:
    known = frozenset(function.name for function in functions)
    return GrammarParser(lambda source, writer: _answer(source, writer, known))


def _answer(source: TextSource, writer: CallWriter, known: Collection[str]) -> Reading[None]:
    source.mark()
    if (yield from source.skip_space()) == "[":
        # Nothing but the name shows that this list holds calls and is no answer.
        yield from writer.attempt(_calls(source, writer, known))
    else:
        writer.content(source.since_mark())
        source.release()
    while (yield from source.until(_START, emit=writer.content)) is not None:
        yield from writer.attempt(_marked_calls(source, writer))


def _marked_calls(source: TextSource, writer: CallWriter) -> Reading[None]:
    yield from source.skip_space()
    yield from _calls(source, writer, None)
    yield from source.skip_space()
    yield from source.choose(_END)


def _calls(source: TextSource, writer: CallWriter, known: Collection[str] | None) -> Reading[None]:
    yield from source.expect("[")
    while True:
        yield from source.skip_space()
        name = yield from _name(source, known)
        yield from source.expect("(")
        arguments = _arguments((yield from _inside(source)))
        writer.begin(name)
        writer.arguments(arguments)
        writer.end()
        if (yield from source.skip_space()) == "":
            return
        source.mark()
        if (yield from source.expect(",", "]")) == "]":
            return


def _name(source: TextSource, known: Collection[str] | None) -> Reading[str]:
    name = ""
    while True:
        name += source.run(_NAME)
        following = yield from source.peek()
        if following == "" or not _NAME.fullmatch(following):
            break
    if known is not None and name not in known:
        raise EndOfText if following == "" else Malformed
    return name


def _inside(source: TextSource) -> Reading[str]:
    """The text up to the parenthesis that closes one already read, which is read as well."""
    pieces: list[str] = []
    awaited = [")"]
    while awaited:
        pieces.append(source.run(_ORDINARY))
        sign = yield from source.peek()
        if sign == "":
            raise EndOfText
        if sign in "\"'":
            pieces.append((yield from _quoted(source, sign)))
        elif sign in "()[]{}":
            pieces.append((yield from source.expect(sign)))
            if sign in _CLOSING:
                awaited.append(_CLOSING[sign])
            elif sign != awaited.pop():
                raise Malformed
    return "".join(pieces)[:-1]


def _quoted(source: TextSource, quote: str) -> Reading[str]:
    """A string with its quotes, three of them or one."""
    text = yield from source.expect(quote)
    if (yield from source.choose(quote * 2)) is not None:
        quote *= 3
        text = quote
    elif (yield from source.choose(quote)) is not None:
        return text + quote
    while (closing := (yield from source.choose(quote))) is None:
        following = yield from source.peek()
        if following == "" or (following == "\n" and len(quote) == 1):
            raise EndOfText if following == "" else Malformed
        text += yield from source.expect(following)
        if following == "\\":
            text += yield from source.expect((yield from source.peek()) or quote)
    return text + closing


def _arguments(text: str) -> str:
    """Python's keyword arguments as a JSON object."""
    try:
        call = ast.parse(f"f({text})", mode="eval").body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise Malformed
        values = {str(keyword.arg): _value(keyword.value) for keyword in call.keywords}
        written = json.dumps(values, ensure_ascii=False, allow_nan=False)
        written.encode()
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        raise Malformed from None
    return written


def _value(node: ast.expr) -> Any:
    """A literal; also `true`, `false` and `null`, which models mix in."""
    match node:
        case ast.Name(id=name) if name in _JSON_NAMES:
            return _JSON_NAMES[name]
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return [_value(item) for item in items]
        case ast.Dict(keys=keys, values=values):
            if not all(isinstance(key, ast.Constant) and isinstance(key.value, str) for key in keys):
                raise Malformed
            return {ast.literal_eval(key): _value(value) for key, value in zip(keys, values, strict=True) if key}
        case _:
            return ast.literal_eval(node)


PYTHONIC = ToolFormat(parser=_parser, openings=(_START,), special_tokens=True, tags=keyword_tags)
