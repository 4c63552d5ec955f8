"""Calls that the caller demanded: the answer is nothing else, in JSON, because the model was constrained to it.

`required`: an array of `{"name": …, "parameters": {…}}`. A named function: its arguments.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.text.source import Reading, TextSource
from headrace.text.tools.call_object import read_calls
from headrace.text.tools.format import Function, ToolParser
from headrace.text.tools.json_text import copy_object
from headrace.text.tools.tags import parameters_of
from headrace.text.tools.writer import CallWriter, GrammarParser


def required_parser() -> ToolParser:
    def answer(source: TextSource, writer: CallWriter) -> Reading[None]:
        yield from source.skip_space()
        yield from _only(source, writer, read_calls(source, writer))

    return GrammarParser(answer)


def named_parser(name: str) -> ToolParser:
    def answer(source: TextSource, writer: CallWriter) -> Reading[None]:
        if (yield from source.skip_space()) != "":  # an answer that was cut short before it began calls nothing
            yield from _only(source, writer, arguments(source, writer))

    def arguments(source: TextSource, writer: CallWriter) -> Reading[None]:
        writer.begin(name)
        yield from copy_object(source, writer.arguments)
        writer.end()

    return GrammarParser(answer)


def required_schema(functions: Sequence[Function], *, parallel: bool) -> dict[str, Any]:
    """What an answer of one or more calls of `functions` is; of exactly one unless `parallel`."""
    calls: list[dict[str, Any]] = []
    definitions: dict[str, Any] = {}
    for index, function in enumerate(functions):
        place = f"parameters{index}"
        definitions[place] = _moved(parameters_of(function), f"#/$defs/{place}")
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "parameters": {"$ref": f"#/$defs/{place}"}},
                "required": ["name", "parameters"],
                "additionalProperties": False,
            }
        )
    schema = {
        "type": "array",
        "minItems": 1,
        "items": calls[0] if len(calls) == 1 else {"anyOf": calls},
        "$defs": definitions,
    }
    return schema if parallel else {**schema, "maxItems": 1}


def named_schema(function: Function) -> dict[str, Any]:
    """What an answer is that holds nothing but the arguments of `function`."""
    return dict(parameters_of(function))


def _moved(schema: Any, place: str) -> Any:
    """`schema` with its references to itself (`#/…`) as they are when it stands at `place` of another one."""
    match schema:
        case {"$ref": str(reference), **others} if reference.startswith("#"):
            return {"$ref": place + reference[1:], **{key: _moved(value, place) for key, value in others.items()}}
        case Mapping():
            return {key: _moved(value, place) for key, value in schema.items()}
        case list():
            return [_moved(item, place) for item in schema]
        case _:
            return schema


def _only(source: TextSource, writer: CallWriter, calls: Reading[None]) -> Reading[None]:
    source.mark()
    yield from writer.attempt(calls)
    yield from source.copy_rest(writer.content)
