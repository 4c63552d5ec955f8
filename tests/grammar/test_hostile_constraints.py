"""Constraints that are made to hurt: refused, or as cheap as any other. Nothing takes long."""

from __future__ import annotations

import random
import time
from typing import Any

import numpy as np
import pytest

from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams
from headrace.grammar.compiler import GrammarCompiler
from headrace.grammar.state import GrammarReader

COMPILE_SECONDS = 10.0
STEP_SECONDS = 2.0
"""Far above what they take: shared machines are slow at times. What the limits are for takes minutes without them."""


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def properties(count: int) -> dict[str, Any]:
    return {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(count)}}


def branches(count: int) -> dict[str, Any]:
    """As many intersections as there are subsets."""
    choices = [{"anyOf": [properties_named(f"a{number}"), properties_named(f"b{number}")]} for number in range(count)]
    return {"type": "object", "allOf": choices}


def properties_named(name: str) -> dict[str, Any]:
    return {"properties": {name: {"type": "string"}}}


REFUSED = {
    "nested too deep": ({"json": nested(65)}, "nested too deep: at most 64 levels"),
    "text nested too deep": ({"json": "[" * 100_000}, "nested too deep"),
    "1 MB of values": ({"json": {"enum": ["x" * 1000 + str(number) for number in range(1000)]}}, "too large"),
    "1 MB of text": ({"json": '{"const": "' + "x" * (1 << 20) + '"}'}, "too large: 10"),
    "exponential schema": ({"json": branches(20)}, "too large"),
    "many properties": ({"json": properties(3000)}, "Too many items"),
    "large modulus": ({"json": {"type": "integer", "multipleOf": 999_983}}, "too costly: .* multipleOf 999983"),
    "moduli together": (
        {"json": {"allOf": [{"multipleOf": 997}, {"multipleOf": 99.1}]}},
        "too costly: .* multipleOf 99",
    ),
    "empty": ({"json": {"type": "integer", "minimum": 5, "maximum": 1}}, "greater than maximum"),
    "long expression that breaks": ({"regex": "ab" * 50_000 + "("}, "unclosed group"),
    "deep expression": ({"regex": "(" * 3000 + "a" + ")" * 3000}, "invalid regex|nest"),
    "deep EBNF": ({"grammar": "root ::= " + "(" * 3000 + '"a"' + ")" * 3000}, "recursion depth"),
    "deep Lark": ({"grammar": "start: " + "(" * 5000 + '"a"' + ")" * 5000}, "too deeply nested"),
    "intersections": (
        {"grammar": "start: T\nT: /(?s:.*)/ & ~/(?s:.*)(a|b).{20}c(?s:.*)/ & /(.{7})*/ & /(.{11})*/ & /(.{13})*/"},
        "too many expressions",
    ),
}

HARMLESS = {
    "64 levels": {"json": nested(64)},
    "long text": {"json": {"type": "string", "maxLength": 10**9}},
    "very long text": {"json": {"type": "string", "minLength": 10**9}},
    "long list": {"json": {"type": "array", "items": {"type": "integer"}, "minItems": 10**6}},
    "1 MB of description": {"json": {"type": "integer", "description": "x" * (1 << 20)}},
    "nested repeats": {"regex": "((((a|b){1,100}c){1,100}d){1,100}e){1,100}"},
    "backtracking": {"regex": "(a+)+b"},
    "backtracking schema": {"json": {"type": "string", "pattern": "(x+x+)+y"}},
    "exponential automaton": {"regex": "[ab]*a[ab]{30}c"},
    "wide gaps": {"regex": ".{0,5000}x.{0,5000}"},
    "20 000 choices": {"choice": [f"option number {number}" for number in range(20_000)]},
    "recursion": {"json": {"type": "object", "properties": {"next": {"$ref": "#"}, "v": {"type": "integer"}}}},
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_costs_too_much_is_refused_by_its_cause(name: str, compiler: GrammarCompiler) -> None:
    fields, reason = REFUSED[name]
    began = time.monotonic()
    with pytest.raises(BadRequest, match=reason) as caught:
        compiler.compile(StructuredOutputsParams(**fields))
    assert time.monotonic() - began < COMPILE_SECONDS
    assert len(caught.value.message) < 10_000


@pytest.mark.parametrize("name", HARMLESS)
def test_what_only_looks_costly_is_cheap(name: str, compiler: GrammarCompiler, reader: GrammarReader) -> None:
    began = time.monotonic()
    state = reader.read(compiler.compile(StructuredOutputsParams(**HARMLESS[name])))
    assert time.monotonic() - began < COMPILE_SECONDS
    ids = random.Random(0)
    for _ in range(40):
        began = time.monotonic()
        allowed = np.unpackbits(np.frombuffer(state.matcher.compute_bitmask(), np.uint8), bitorder="little")
        choices = np.flatnonzero(allowed)
        assert state.problem is None
        assert state.advance(int(ids.choice(choices)))
        assert time.monotonic() - began < STEP_SECONDS
        if state.ended:
            break


def test_a_grammar_that_becomes_too_costly_says_so(compiler: GrammarCompiler, reader: GrammarReader) -> None:
    ambiguous = "start: e\ne: e e | e e e | /[a-z]/ | "
    state = reader.read(compiler.compile(StructuredOutputsParams(grammar=ambiguous)))
    for _ in range(100):
        state.matcher.compute_bitmask()
        if state.problem is not None:
            break
        state.advance(82)
    assert "Too many items" in (state.problem or "")
