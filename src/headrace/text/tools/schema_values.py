"""Arguments that are written as plain text: what value each one is, by the schema of its function."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from typing import Any

from headrace.text.tools.format import Function

_JSON_TYPES: Mapping[type, str] = {
    str: "string",
    bool: "boolean",
    int: "integer",
    float: "number",
    type(None): "null",
    list: "array",
    dict: "object",
}
_ANY = frozenset(_JSON_TYPES.values())
_STRING = frozenset({"string"})
_DEEPEST = 16


def is_string(function: Function | None, argument: str) -> bool:
    """Whether the text of this argument is its value as it stands."""
    return argument_types(function, argument) == _STRING


def json_value(text: str, function: Function | None, argument: str) -> str:
    """The argument's JSON: of the first type that its schema allows and its text can be read as, else a string."""
    types = argument_types(function, argument)
    value: Any = text
    if types != _STRING:
        for candidate in _readings(text.strip()):
            kind = _JSON_TYPES[type(candidate)]
            if kind in types or (kind == "integer" and "number" in types):
                value = candidate
                break
    return json.dumps(value, ensure_ascii=False)


def _readings(text: str) -> list[Any]:
    """What `text` may stand for, best first: as JSON, as Python writes it."""
    found: list[Any] = []
    for spelled in (text, text.lower()):
        try:
            found.append(json.loads(spelled, parse_constant=_no_constant))
        except (ValueError, RecursionError):
            continue
    if found and isinstance(found[0], float) and found[0].is_integer():
        found.append(int(found[0]))
    try:
        value = ast.literal_eval(text)
        json.dumps(value, allow_nan=False).encode()
        found.append(list(value) if isinstance(value, tuple) else value)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        pass
    return [value for value in found if type(value) in _JSON_TYPES]


def _no_constant(name: str) -> Any:
    raise ValueError(name)


def argument_types(function: Function | None, argument: str) -> frozenset[str]:
    """The JSON types that the schema allows; only text for an argument that it does not know."""
    root = _root(function)
    schema = _properties(root).get(argument)
    return _STRING if schema is None else _types(schema, root, 0)


def argument_schema(function: Function, argument: str) -> Mapping[str, Any]:
    """The schema of one argument, any value if it has none."""
    schema = _properties(_root(function)).get(argument)
    return schema if isinstance(schema, Mapping) else {}


def _root(function: Function | None) -> Mapping[str, Any]:
    return {} if function is None or function.parameters is None else function.parameters


def _properties(root: Mapping[str, Any]) -> Mapping[str, Any]:
    properties = root.get("properties")
    return properties if isinstance(properties, Mapping) else {}


def _types(schema: Any, root: Mapping[str, Any], depth: int) -> frozenset[str]:
    if not isinstance(schema, Mapping) or depth > _DEEPEST:
        return _ANY
    if isinstance(reference := schema.get("$ref"), str):
        return _types(_resolved(reference, root), root, depth + 1)
    match schema.get("type"):
        case str(name):
            return frozenset({name})
        case list(names):
            return frozenset(name for name in names if isinstance(name, str))
    if "const" in schema:
        return frozenset({_JSON_TYPES.get(type(schema["const"]), "string")})
    if isinstance(values := schema.get("enum"), list):
        return frozenset(_JSON_TYPES.get(type(value), "string") for value in values)
    for key in ("anyOf", "oneOf"):
        if isinstance(options := schema.get(key), list) and options:
            return frozenset().union(*(_types(option, root, depth + 1) for option in options))
    if isinstance(parts := schema.get("allOf"), list) and parts:
        return _ANY.intersection(*(_types(part, root, depth + 1) for part in parts))
    return _ANY


def _resolved(reference: str, root: Mapping[str, Any]) -> Any:
    """The schema that a reference inside `root` (`#/$defs/Name`) names; None if there is none."""
    schema: Any = root
    for step in reference.removeprefix("#").split("/")[1:]:
        schema = schema.get(step.replace("~1", "/").replace("~0", "~")) if isinstance(schema, Mapping) else None
    return schema
