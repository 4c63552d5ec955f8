"""A JSON schema, made ready for llguidance: as deep as is allowed, with what the server's options say."""

from __future__ import annotations

import math
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from headrace.grammar.errors import BadConstraint

DEEPEST = 64
"""Most levels of schemas within schemas."""

_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions", "dependentSchemas"})
_LISTS = frozenset({"anyOf", "allOf", "oneOf", "prefixItems", "items"})
_SINGLE = frozenset(
    {
        *("items", "additionalProperties", "additionalItems", "unevaluatedItems", "unevaluatedProperties"),
        *("contains", "propertyNames", "not", "if", "then", "else"),
    }
)
"""Keywords that hold schemas: by name, in a list, as such."""

_ANNOTATIONS = frozenset(
    {"title", "description", "default", "examples", "$comment", "deprecated", "readOnly", "writeOnly"}
)
"""Keywords for people. They can be most of a schema, and say nothing of its form."""

_FORMATS = frozenset(
    {"date-time", "time", "date", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri"},
)
"""The formats that a string can be held to. Others only say what it is for, and leave it free."""


LARGEST_MODULUS = 20_000
"""Most that the `multipleOf`s of a schema may come to together, short of factors of 2 and 5: an automaton that divides
has as many states.
"""


def prepared(schema: Mapping[str, Any], *, closed: bool, whitespace: Mapping[str, Any]) -> dict[str, Any]:
    """The schema in the form that llguidance takes. Raises `BadConstraint` if it is nested too deep or costs too much.

    `closed`: objects that list properties have no others unless they say so. `whitespace` are llguidance's options for
    what may stand between the tokens of JSON.
    """
    return {**_Preparation(closed).schema(schema, 1), "x-guidance": dict(whitespace)}


class _Preparation:
    def __init__(self, closed: bool) -> None:
        self._closed = closed
        self._modulus = 1

    def schema(self, schema: Mapping[str, Any], level: int) -> dict[str, Any]:
        if level > DEEPEST:
            raise BadConstraint(f"the schema is nested too deep: at most {DEEPEST} levels are allowed.")
        ready: dict[str, Any] = {}
        for keyword, value in schema.items():
            if keyword in _ANNOTATIONS or (keyword == "format" and isinstance(value, str) and value not in _FORMATS):
                continue
            if keyword == "multipleOf":
                self._check_modulus(value)
            ready[keyword] = self._inner(keyword, value, level + 1)
        if self._closed and "properties" in ready:
            ready.setdefault("additionalProperties", False)
        return ready

    def _inner(self, keyword: str, value: Any, level: int) -> Any:
        """What stands under a keyword, with the schemas in it made ready."""
        if isinstance(value, Mapping):
            if keyword in _MAPS:
                return {name: self._one(inner, level) for name, inner in value.items()}
            if keyword in _SINGLE:
                return self.schema(value, level)
        elif isinstance(value, list) and keyword in _LISTS:
            return [self._one(inner, level) for inner in value]
        return value

    def _one(self, schema: Any, level: int) -> Any:
        """A schema may also be true or false."""
        return self.schema(schema, level) if isinstance(schema, Mapping) else schema

    def _check_modulus(self, value: Any) -> None:
        if not isinstance(value, int | float) or not 0 < value < math.inf:
            return  # llguidance says what is wrong with it
        digits = int("".join(map(str, Decimal(str(value)).as_tuple().digits)))
        for factor in (2, 5):  # the last digits of a number say whether these divide it
            while digits % factor == 0:
                digits //= factor
        self._modulus = math.lcm(self._modulus, digits)
        if self._modulus > LARGEST_MODULUS:
            raise BadConstraint(f"too costly: no text can be held to multipleOf {value} without a large automaton.")
