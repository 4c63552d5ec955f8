"""Constraints for calls: the tags of a structural tag (see `StructuredOutputsParams`), one for each beginning.

A call that has begun has the name of one of the functions, and arguments that follow its schema.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.text.tools.format import Function, Tag
from headrace.text.tools.schema_values import argument_schema, argument_types

WriteTags = Callable[[Sequence[Function]], list[Tag]]


def parameters_of(function: Function) -> dict[str, Any]:
    """The schema of the arguments, which are an object whether it says so or not; of none if there is no schema."""
    if function.parameters is None:
        return {"type": "object", "properties": {}}
    return {"type": "object", **function.parameters}


def json_tags(begin: str, end: str) -> WriteTags:
    """Of formats that write `begin`, the arguments as JSON, `end`; `{name}` in `begin` is the name, as JSON has it."""

    def tags(functions: Sequence[Function]) -> list[Tag]:
        return [
            {
                "type": "tag",
                "begin": begin.replace("{name}", json.dumps(function.name, ensure_ascii=False)[1:-1]),
                "content": {"type": "json_schema", "json_schema": parameters_of(function)},
                "end": end,
            }
            for function in functions
        ]

    return tags


def list_tag(begin: str, end: str) -> WriteTags:
    """Of formats that write all calls as one JSON array between `begin` and `end`."""
    one = json_tags('{"name": "{name}", "arguments": ', "}")

    def tags(functions: Sequence[Function]) -> list[Tag]:
        calls = {"type": "tags_with_separator", "tags": one(functions), "separator": ", ", "at_least_one": True}
        return [{"type": "tag", "begin": f"{begin}[", "content": calls, "end": f"]{end}"}]

    return tags


def numbered_tags(begin: str, middle: str, end: str) -> WriteTags:
    """Of formats that write `begin`, a number, `middle`, the arguments as JSON, `end`."""

    def tags(functions: Sequence[Function]) -> list[Tag]:
        return [
            {
                "type": "tag",
                "begin": begin.replace("{name}", function.name),
                "content": {
                    "type": "sequence",
                    "elements": [
                        {"type": "regex", "pattern": "[0-9]{1,4}"},
                        {"type": "const_string", "value": middle},
                        {"type": "json_schema", "json_schema": parameters_of(function)},
                    ],
                },
                "end": end,
            }
            for function in functions
        ]

    return tags


def argument_tags(begin: str, before: str, after: str, end: str) -> WriteTags:
    """Of formats that write each argument between tags of its own, in the order of the schema.

    `{name}` in `begin` is the function's name, in `before` the argument's. Texts are free up to `after`.
    """

    def tags(functions: Sequence[Function]) -> list[Tag]:
        return [
            {
                "type": "tag",
                "begin": begin.replace("{name}", function.name),
                "content": {"type": "sequence", "elements": [*_arguments(function, before, after), _NOTHING]},
                "end": end,
            }
            for function in functions
        ]

    return tags


def keyword_tags(functions: Sequence[Function]) -> list[Tag]:
    """Of one call in Python, `[f(a=1, b="x")]`, the arguments as JSON: those that are required, then any others."""
    return [
        {
            "type": "tag",
            "begin": f"[{function.name}(",
            "content": {"type": "sequence", "elements": [*_keywords(function), _NOTHING]},
            "end": ")]",
        }
        for function in functions
    ]


_NOTHING: Mapping[str, Any] = {"type": "const_string", "value": ""}


def _keywords(function: Function) -> list[Mapping[str, Any]]:
    parameters = parameters_of(function)
    names = list(parameters.get("properties") or {})
    required = [name for name in names if name in (parameters.get("required") or [])]
    first, *others = required or names or [None]
    if first is None:
        return []
    others += [name for name in names if name not in (first, *others)]
    elements = [_keyword(function, first, "")]
    for name in others:
        keyword = _keyword(function, name, ", ")
        elements.append(keyword if name in required else _optional(keyword))
    return elements if required else [_optional({"type": "sequence", "elements": elements})]


def _keyword(function: Function, name: str, before: str) -> Mapping[str, Any]:
    value = {"type": "json_schema", "json_schema": _standalone(function, name)}
    return {"type": "sequence", "elements": [{"type": "const_string", "value": f"{before}{name}="}, value]}


def _optional(element: Mapping[str, Any]) -> Mapping[str, Any]:
    return {"type": "or", "elements": [element, _NOTHING]}


def _arguments(function: Function, before: str, after: str) -> list[Mapping[str, Any]]:
    parameters = parameters_of(function)
    required = parameters.get("required") or []
    elements: list[Mapping[str, Any]] = []
    for name in parameters.get("properties") or {}:
        element: Mapping[str, Any] = {
            "type": "tag",
            "begin": before.replace("{name}", name),
            "content": _value(function, name),
            "end": after,
        }
        elements.append(element if name in required else _optional(element))
    return elements


def _value(function: Function, name: str) -> Mapping[str, Any]:
    options = argument_schema(function, name).get("enum")
    if isinstance(options, list) and options and all(isinstance(option, str) for option in options):
        return {"type": "or", "elements": [{"type": "const_string", "value": option} for option in options]}
    if "string" in argument_types(function, name):
        return {"type": "any_text"}
    return {"type": "json_schema", "json_schema": _standalone(function, name)}


def _standalone(function: Function, name: str) -> dict[str, Any]:
    """The schema of one argument, with the definitions that it may refer to."""
    definitions = {key: value for key, value in parameters_of(function).items() if key in ("$defs", "definitions")}
    return {**definitions, **argument_schema(function, name)}
