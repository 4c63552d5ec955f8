"""What each kind of constraint accepts, and which are refused with what reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams
from headrace.grammar.compiler import GrammarCompiler

PERSON = {
    "type": "object",
    "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}
CALLS = {
    "structures": [
        {"begin": "<function=get>", "schema": PERSON, "end": "</function>"},
        {"begin": "<function=put>", "schema": {"type": "integer"}, "end": "</function>"},
    ],
    "triggers": ["<function="],
}


def tags(**changes: Any) -> dict[str, Any]:
    tag = {"begin": "<call>\n", "content": {"type": "json_schema", "json_schema": PERSON}, "end": "\n</call>"}
    return {"format": {"type": "triggered_tags", "triggers": ["<call>"], "tags": [tag], **changes}}


def sequence(*elements: dict[str, Any]) -> dict[str, Any]:
    return {"format": {"type": "sequence", "elements": list(elements)}}


def text(value: str) -> dict[str, Any]:
    return {"type": "const_string", "value": value}


THOUGHT = {"type": "tag", "begin": "<think>", "content": {"type": "any_text"}, "end": "</think>"}
LIST = {
    "format": {
        "type": "tags_with_separator",
        "separator": ", ",
        "tags": [{"begin": "<n>", "content": {"type": "regex", "pattern": "[0-9]+"}, "end": "</n>"}],
    }
}
SQL = """
root ::= select
# what can be asked for
select ::= "SELECT " column " FROM " table
  | "NOTHING"
column ::= [a-z_]+ | "*" | "\\u00e9\\"/"
table ::= ([a-z] [a-z0-9]{0,3}) (" AS " column)?
"""
LARK = """
?start: select
select: "SELECT" " " NAME ("," " "? NAME)*
NAME: /[a-z]+/
"""
CALL = '<call>\n{"name": "x", "age": 1}\n</call>'


@pytest.mark.parametrize(
    ("params", "answer", "expected"),
    [
        # JSON: white space as printers put it, further properties unless they are closed
        ({"json": PERSON}, '{"name":"a","age":1}', "yes"),
        ({"json": json.dumps(PERSON)}, '{"name": "a", "age": 1}', "yes"),
        ({"json": PERSON}, '{\n  "name": "a",\n  "age": 1\n}', "yes"),
        ({"json": PERSON}, '{"name":     "a"', "no"),
        ({"json": PERSON}, ' {"name"', "no"),
        ({"json": PERSON}, '{"name":"a","age":1} ', "no"),
        ({"json": PERSON}, '{"age":1', "no"),
        ({"json": PERSON}, '{"name":"a","age":1.5', "no"),
        ({"json": PERSON}, '{"name":"a","age":1,"more":[{"x":null}]}', "yes"),
        ({"json": PERSON, "disable_additional_properties": True}, '{"name":"a","age":1,', "no"),
        ({"json": PERSON, "disable_additional_properties": True}, '{"name":"a","age":1}', "yes"),
        ({"json": PERSON, "disable_any_whitespace": True}, '{"name": ', "no"),
        ({"json": PERSON, "disable_any_whitespace": True}, '{"name":"a","age":1}', "yes"),
        ({"json": PERSON, "whitespace_pattern": "[ ]?"}, '{"name": "a","age":1}', "yes"),
        ({"json": PERSON, "whitespace_pattern": "[ ]?"}, '{"name":\n', "no"),
        ({"json": PERSON, "whitespace_pattern": ""}, '{"name": ', "no"),
        ({"json": {"type": "string", "format": "date"}}, '"2024-02-30"', "no"),
        ({"json": {"type": "string", "format": "date"}}, '"2024-02-03"', "yes"),
        ({"json": {"type": "string", "format": "password"}}, '"anything"', "yes"),
        ({"json": {"type": "object", "properties": {"format": {"type": "integer"}}}}, '{"format":1}', "yes"),
        ({"json_object": True}, '{"a": [1, 2.5, "x", {"y": null}], "b": true}', "yes"),
        ({"json_object": True}, "[", "no"),
        # regular expressions: the whole output
        ({"regex": r"^\d{3}-\d{4}$"}, "555-1234", "yes"),
        ({"regex": r"^\d{3}-\d{4}$"}, "555-12345", "no"),
        ({"regex": r"a|bc"}, "bc", "yes"),
        ({"regex": r"a|bc"}, "abc", "no"),
        ({"regex": r"[a-z]+@[a-z]+\.com/x?"}, "ab@c.com/", "yes"),
        ({"regex": r"[a-z]+@[a-z]+\.com/x?"}, "ab@c", "begun"),
        ({"regex": "é+\\n\\w"}, "éé\nö", "yes"),
        ({"regex": r"\$"}, "$", "yes"),
        ({"regex": ""}, "", "yes"),
        ({"regex": "(?i)yes"}, "YeS", "yes"),
        # choices: one of them, exactly
        ({"choice": ["yes", "no", "nothing"]}, "no", "yes"),
        ({"choice": ["yes", "no", "nothing"]}, "noth", "begun"),
        ({"choice": ["yes", "no"]}, "yes!", "no"),
        ({"choice": ['"é😀\\\n', "b"]}, '"é😀\\\n', "yes"),
        # grammars
        ({"grammar": SQL}, "SELECT abc_d FROM t1 AS x", "yes"),
        ({"grammar": SQL}, 'SELECT é"/ FROM t', "yes"),
        ({"grammar": SQL}, "NOTHING", "yes"),
        ({"grammar": SQL}, "SELECT A", "no"),
        ({"grammar": SQL}, "SELECT * FROM t12345", "no"),
        ({"grammar": 'root ::= "(" root ")" | "x"'}, "((x))", "yes"),
        ({"grammar": 'root ::= "(" root ")" | "x"'}, "((x)", "begun"),
        ({"grammar": LARK}, "SELECT a, b,c", "yes"),
        ({"grammar": LARK}, "SELECT a,", "begun"),
        ({"grammar": LARK}, "SELECT 1", "no"),
        # structural tags, older shape and newer
        ({"structural_tag": CALLS}, "free text, <func", "yes"),
        (
            {"structural_tag": CALLS},
            'so <function=get>{"name":"a","age":1}</function> <function=put>3</function>',
            "yes",
        ),
        ({"structural_tag": CALLS}, "<function=put>3</function><function=put>4</function>", "yes"),
        ({"structural_tag": json.dumps(CALLS)}, "<function=drop", "no"),
        ({"structural_tag": CALLS}, "<function=put>x", "no"),
        ({"structural_tag": tags()}, f"a {CALL} b {CALL}", "yes"),
        ({"structural_tag": tags(at_least_one=True)}, "free", "begun"),
        ({"structural_tag": tags(at_least_one=True, stop_after_first=True)}, f"a {CALL}", "yes"),
        ({"structural_tag": tags(at_least_one=True, stop_after_first=True)}, f"a {CALL} ", "no"),
        ({"structural_tag": tags(stop_after_first=True)}, "free", "yes"),
        ({"structural_tag": sequence(THOUGHT, text("A"), {"type": "any_text"})}, "<think>hm</think>A and more", "yes"),
        ({"structural_tag": sequence(THOUGHT, text("A"))}, "<think>hm</think>B", "no"),
        ({"structural_tag": {"format": {"type": "or", "elements": [text("A"), text("BC")]}}}, "BC", "yes"),
        ({"structural_tag": {"format": {"type": "grammar", "grammar": SQL}}}, "NOTHING", "yes"),
        ({"structural_tag": LIST}, "<n>1</n>, <n>22</n>", "yes"),
        ({"structural_tag": LIST}, "<n>1</n>,", "begun"),
        ({"structural_tag": LIST}, "", "yes"),
        # reasoning first
        ({"choice": ["A", "B"], "starts_after": "</think>"}, "well, A </think>A", "yes"),
        ({"choice": ["A", "B"], "starts_after": "</think>"}, "</think>C", "no"),
        ({"choice": ["A", "B"], "starts_after": "</think>"}, "only </thin", "yes"),
        ({"choice": ["A", "B"], "starts_after": "</think>"}, "x</think>A</think>", "no"),
        ({"json": PERSON, "starts_after": "<|im_start|>"}, 'x <|im_start|>{"name":"a","age":1}', "yes"),
        ({"json": PERSON, "starts_after": "<|im_start|>"}, "x <|im_start|>so", "no"),
        ({"json": PERSON, "starts_after": "<|im_start|>"}, "<repo_name> x", "yes"),
        ({"grammar": SQL, "starts_after": "</think>"}, "x</think>NOTHING", "yes"),
    ],
)
def test_accepts_exactly_what_is_asked_for(params, answer, expected, verdict):
    assert verdict(StructuredOutputsParams(**params), answer) == expected


@pytest.mark.parametrize(
    ("params", "reason"),
    [
        ({"json": "{"}, "not valid JSON"),
        ({"json": "3"}, "must be a JSON object, got int"),
        ({"json": {"type": "integer", "minimum": 5, "maximum": 1}}, r"minimum \(5\) is greater than maximum \(1\)"),
        ({"json": {"type": "text"}}, "Invalid type: text"),
        ({"json": {"enum": []}}, "Unsatisfiable schema"),
        ({"json": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
        ({"json": {"$ref": "#"}}, "no answer can meet it"),
        ({"json": {"const": float("nan")}}, "cannot be written as JSON"),
        ({"json": {"const": {1, 2}}}, "cannot be written as JSON"),
        ({"json": PERSON, "whitespace_pattern": "("}, "unclosed group"),
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": "(?=a)b"}, "look-around"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"choice": ["\ud800"]}, "half of a surrogate pair"),
        ({"grammar": "start: other"}, 'unknown name: "other"'),
        ({"grammar": "root ::= other"}, "Rule 'other' not found"),
        ({"grammar": 'start: start "a"'}, "no answer can meet it"),
        ({"grammar": "nonsense"}, "Expected token ':'"),
        ({"structural_tag": "["}, "not valid JSON"),
        ({"structural_tag": {}}, "needs a format, or structures and triggers"),
        ({"structural_tag": {"structures": [], "triggers": ["<"]}}, "structures to be a list of at least one object"),
        ({"structural_tag": {**CALLS, "triggers": ["<tool>"]}}, "no trigger is the beginning"),
        ({"structural_tag": {"format": {"type": "qwen_xml_parameter"}}}, "'qwen_xml_parameter'; known are"),
        ({"structural_tag": sequence({"type": "any_text"}, text("A"))}, "any_text before its end"),
        ({"structural_tag": sequence(text("A"), {"type": "tag", "begin": "x"})}, "end to be a list"),
    ],
)
def test_refuses_with_the_reason(params, reason, compiler: GrammarCompiler):
    with pytest.raises(BadRequest, match=reason) as caught:
        compiler.compile(StructuredOutputsParams(**params, parameter="response_format"))
    assert caught.value.parameter == "response_format"
    assert caught.value.message.startswith("response_format: ")
    assert "\n" not in caught.value.message


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({}, "must have one of json, regex"),
        ({"json_object": False}, "must have one of json, regex"),
        ({"json": PERSON, "regex": "a"}, r"one kind of constraints .* \('json', 'regex' or 'choice'\)"),
        ({"choice": []}, "at least one text"),
        ({"choice": "yes"}, "at least one text"),
        ({"choice": ["a", 1]}, "a list of texts"),
        ({"json": [1]}, "json must be a JSON object, or its text, got list"),
        ({"regex": 3}, "regex must be a text, got int"),
        ({"regex": "a", "disable_any_whitespace": "yes"}, "disable_any_whitespace must be true or false"),
        ({"regex": "a", "starts_after": ""}, "starts_after must not be empty"),
    ],
)
def test_params_check_themselves(fields, reason):
    with pytest.raises(BadRequest, match=reason) as caught:
        StructuredOutputsParams(**fields)
    assert caught.value.parameter == "structured_outputs"


def test_special_tokens_are_no_text(compiler, reader, vocabulary):
    """A control token in the middle of a string would vanish from the text."""
    matcher = reader.read(compiler.compile(StructuredOutputsParams(regex=".*"))).matcher
    special = [token for token in vocabulary.special_ids if token not in vocabulary.eos_ids]
    assert special
    assert all(matcher.validate_tokens([token]) == 0 for token in special)
    assert matcher.validate_tokens([vocabulary.eos_ids[0]]) == 1
