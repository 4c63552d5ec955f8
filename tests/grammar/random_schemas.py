"""Random JSON schemas, of the kinds that people write, each of which some answer meets."""

from __future__ import annotations

import random
from typing import Any

WORDS = ("name", "age", "city", "tags", "price", "kind", "owner", "items", "note", "active", "id", "date")
PATTERNS = ("^[A-Z][a-z]{1,8}$", "^[0-9]{3}-[0-9]{4}$", "^(red|green|blue)$", "^#[0-9a-f]{6}$", "[aeiou]{2}$")
FORMATS = ("date", "time", "date-time", "ipv4", "uuid")


class SchemaMaker:
    """The same seed makes the same schemas."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def schema(self) -> dict[str, Any]:
        """An object with a few properties, now and then with definitions that refer to each other."""
        found = self._object(2)
        if self._random.random() < 0.1:
            found["$defs"] = {"node": self._node(), "leaf": self._scalar()}
            found["properties"]["tree"] = {"$ref": "#/$defs/node"}
        return found

    def _node(self) -> dict[str, Any]:
        return {
            "type": "object",
            "properties": {
                "value": {"$ref": "#/$defs/leaf"},
                "next": {"anyOf": [{"$ref": "#/$defs/node"}, {"type": "null"}]},
            },
            "required": ["value"],
            "additionalProperties": False,
        }

    def _any(self, depth: int) -> dict[str, Any]:
        kinds = [self._scalar, self._scalar, self._scalar]
        if depth > 0:
            kinds += [lambda: self._object(depth - 1), lambda: self._array(depth - 1), lambda: self._union(depth - 1)]
        return self._random.choice(kinds)()

    def _object(self, depth: int) -> dict[str, Any]:
        names = self._random.sample(WORDS, self._random.randint(1, 3))
        return {
            "type": "object",
            "properties": {name: self._any(depth) for name in names},
            "required": [name for name in names if self._random.random() < 0.8],
            "additionalProperties": False,
        }

    def _array(self, depth: int) -> dict[str, Any]:
        low = self._random.randint(0, 2)
        found: dict[str, Any] = {"type": "array", "minItems": low, "maxItems": low + self._random.randint(0, 2)}
        if self._random.random() < 0.2:
            parts = [self._scalar() for _ in range(2)]
            return {"type": "array", "prefixItems": parts, "items": False, "minItems": 2}
        return {**found, "items": self._any(depth)}

    def _union(self, depth: int) -> dict[str, Any]:
        if self._random.random() < 0.5:
            return {"anyOf": [self._any(depth) for _ in range(self._random.randint(2, 3))]}
        branches = [
            {
                "type": "object",
                "properties": {"kind": {"const": kind}, "value": self._scalar()},
                "required": ["kind", "value"],
                "additionalProperties": False,
            }
            for kind in ("first", "second")
        ]
        return {"oneOf": branches}

    def _scalar(self) -> dict[str, Any]:
        return self._random.choice(
            (self._text, self._text, self._integer, self._number, self._enum, self._constant, self._simple)
        )()

    def _text(self) -> dict[str, Any]:
        match self._random.randrange(4):
            case 0:
                return {"type": "string", "pattern": self._random.choice(PATTERNS), "maxLength": 20}
            case 1:
                return {"type": "string", "format": self._random.choice(FORMATS), "description": "as it is written"}
            case 2:
                low = self._random.randint(0, 5)
                return {"type": "string", "minLength": low, "maxLength": low + self._random.randint(0, 12)}
            case _:
                return {"type": "string", "maxLength": 24}

    def _integer(self) -> dict[str, Any]:
        low = self._random.randint(-1000, 1000)
        found: dict[str, Any] = {"type": "integer", "minimum": low, "maximum": low + self._random.randint(10, 5000)}
        if self._random.random() < 0.3:
            found["multipleOf"] = self._random.choice((2, 3, 5, 10))
        return found

    def _number(self) -> dict[str, Any]:
        low = round(self._random.uniform(-10, 10), 2)
        bounds = self._random.choice((("minimum", "maximum"), ("exclusiveMinimum", "exclusiveMaximum")))
        found = {"type": "number", bounds[0]: low, bounds[1]: round(low + self._random.uniform(0.5, 100), 2)}
        return found | {"multipleOf": 0.25} if self._random.random() < 0.8 else found

    def _enum(self) -> dict[str, Any]:
        return {"enum": self._random.sample(["a", "bb", 'q"q', "é", 1, 2.5, True, None, [1], {"x": 0}], 3)}

    def _constant(self) -> dict[str, Any]:
        return {"const": self._random.choice(["fixed", 7, False, None, [1, "x"], {"a": {"b": []}}])}

    def _simple(self) -> dict[str, Any]:
        return {"type": self._random.choice([["string", "null"], ["integer", "boolean"], ["boolean"]]), "maxLength": 9}
