"""Tool parsers: what models write is found, in any split, and what is no call is shown."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tool_texts import OLD_MISTRAL, TYPED, WHOLE_ANSWER, WRITERS, Call, calls_of, content_of, functions_of, read

from headrace.text.tools import (
    TOOL_FORMATS,
    CallArguments,
    CallBegun,
    CallBroken,
    ContentText,
    Function,
    ToolParser,
)

TWO = [Call("get_weather", {"city": "Zürich", "days": 3}), Call("stop", {})]

fuzzed = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])

names = st.from_regex(r"[a-z_][a-z_0-9]{0,11}", fullmatch=True).filter(
    lambda name: name not in {"if", "in", "is", "or", "as", "and", "not", "for", "def", "del", "try", "from", "pass"}
)
texts = st.text(st.characters(exclude_categories=("Cs", "Cc"), include_characters="\n\t"), max_size=24)
scalars = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | texts
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3), max_leaves=5
)


@st.composite
def call_lists(draw: st.DrawFn) -> list[Call]:
    distinct = draw(st.lists(names, min_size=1, max_size=3, unique=True))
    return [Call(name, draw(st.dictionaries(names, values, max_size=3))) for name in distinct]


@st.composite
def cut(draw: st.DrawFn, text: str) -> list[str]:
    places = sorted(draw(st.sets(st.integers(0, len(text)), max_size=12)))
    return [text[start:stop] for start, stop in zip([0, *places], [*places, len(text)], strict=True)]


def parser_of(name: str, calls: list[Call] = TWO) -> ToolParser:
    return TOOL_FORMATS[name].parser(functions_of(calls))


def as_written(value: Any, name: str) -> bool:
    """Whether a value survives being written in a format: plain text has no way to write some."""
    if name in WHOLE_ANSWER or name not in TYPED:
        return True
    if value is None:
        return True
    return not isinstance(value, str) or (value not in ("null", "") and "<" not in value and value == value.strip())


@pytest.mark.parametrize("name", WRITERS)
@fuzzed
@given(data=st.data())
def test_calls_are_read_back_in_any_split(name: str, data: st.DataObject):
    calls = data.draw(call_lists())
    if not all(as_written(value, name) for call in calls for value in call.arguments.values()):
        return
    text = WRITERS[name](calls)
    events = read(parser_of(name, calls), *data.draw(cut(text)))
    assert calls_of(events) == calls
    assert content_of(events) == ""


@pytest.mark.parametrize("name", WRITERS)
@fuzzed
@given(data=st.data())
def test_any_text_is_read_alike_in_any_split(name: str, data: st.DataObject):
    """Also one that no model should write: calls with pieces missing, doubled, or in the wrong place."""
    text = data.draw(texts) + WRITERS[name](data.draw(call_lists())) + data.draw(texts)
    for _ in range(data.draw(st.integers(0, 3))):
        start = data.draw(st.integers(0, len(text)))
        stop = data.draw(st.integers(start, min(len(text), start + 9)))
        text = (
            text[:start] + data.draw(st.sampled_from(["", "{", '"', "}", "[", "]", "\\", "<", "\n", "x"])) + text[stop:]
        )
    whole = read(parser_of(name), text)
    assert read(parser_of(name), *text) == whole
    assert read(parser_of(name), *data.draw(cut(text))) == whole


@pytest.mark.parametrize("name", WRITERS)
@fuzzed
@given(text=texts)
def test_an_answer_without_calls_is_shown_as_it_is(name: str, text: str):
    for pieces in ([text], list(text)):
        assert read(parser_of(name), *pieces) == ([ContentText(text)] if text else [])


@pytest.mark.parametrize("name", sorted(set(WRITERS) - WHOLE_ANSWER))
def test_text_around_calls_is_content_and_markers_are_not(name: str):
    events = read(parser_of(name), *f"Let me see.\n\n{WRITERS[name](TWO)}\n\nDone.")
    assert calls_of(events) == TWO
    assert content_of(events) == "Let me see.Done."


@pytest.mark.parametrize("name", WRITERS)
def test_a_call_that_is_cut_short_is_no_call(name: str):
    text = WRITERS[name](TWO[:1])
    at = text.index("Zür") + 2
    *_, last = read(parser_of(name), *text[:at])
    match last:
        case CallBroken(written, unseen):
            assert text[:at].endswith(written)
            assert "{" not in text[:at].removesuffix(written), "no more than the marker of a section is missing"
            assert written.endswith(unseen)
        case ContentText(written):
            assert written == text[:at]
        case _:
            pytest.fail(f"{last} is left of it")


def test_arguments_come_as_they_are_written():
    parser = parser_of("hermes")
    assert parser.push('<tool_call>{"name": "f", "argum') == []
    assert parser.push('ents": ') == []
    assert parser.push('{"a"') == [CallBegun("f"), CallArguments('{"a"')]
    assert parser.push(': "x y') == [CallArguments(': "x y')]
    assert parser.push(' z"}') == [CallArguments(' z"}')]
    assert parser.push("}\n</tool_call>") == parser.finish() == []


def test_texts_between_tags_come_as_they_are_written():
    parser = TOOL_FORMATS["qwen3_coder"].parser(functions_of([Call("f", {"code": "", "n": 1})]))
    assert parser.push("<tool_call>\n<function=f>\n<parameter=code>") == [CallBegun("f")]
    assert parser.push('\na "b"\n') == [CallArguments('{"code": "a \\"b\\"')]
    assert parser.push("\tc\n</para") == [CallArguments("\\n\\tc")]
    assert parser.push("meter>\n<parameter=n>\n4") == [CallArguments('"')]
    assert parser.push("2\n</parameter>") == [CallArguments(', "n": 42')]
    assert parser.push("\n</function>\n</tool_call>") == [CallArguments("}")]


def test_nothing_is_held_back_that_cannot_be_a_marker():
    parser = parser_of("hermes")
    assert parser.push("1 < 2") == [ContentText("1 < 2")]
    assert parser.push(" and <tool") == [ContentText(" and")]
    assert parser.push("box>") == [ContentText(" <toolbox>")]


class TestJson:
    @pytest.mark.parametrize(
        ("text", "call"),
        [
            ('{"arguments": {"a": [1, 2]}, "name": "f"}', Call("f", {"a": [1, 2]})),
            ('{"name": "f"}', Call("f", {})),
            ('{"name": "f", "arguments": null}', Call("f", {})),
            ('{"id": 7, "type": "function", "name": "f", "parameters": {"a": 1}}', Call("f", {"a": 1})),
            ('{"name": "f", "arguments": "{\\"a\\": 1}"}', Call("f", {"a": 1})),
            ('{"name": "f", "arguments": {"a": "line\nbreak\t"}}', Call("f", {"a": "line\nbreak\t"})),
            ('{"name": "f", "arguments": {"a": 1}', Call("f", {"a": 1})),
            ('{"name": "caf\\u00e9", "arguments": {"a": -1.5e3, "b": true}}', Call("café", {"a": -1500.0, "b": True})),
        ],
    )
    def test_what_is_a_call(self, text: str, call: Call):
        assert calls_of(read(parser_of("hermes"), *f"<tool_call>{text}")) == [call]

    @pytest.mark.parametrize(
        "text",
        [
            "{}",
            "[1]",
            '{"arguments": {}}',
            '{"name": 5}',
            '{"name": ""}',
            '{"name": "f", "arguments": [1]}',
            '{"name": "f", "arguments": "no object"}',
            '{"name": "f", "name": "g"}',
            '{"name": "f" "arguments": {}}',
            '{"name": "\\ud800"}',
            '{"name": "f", "arguments": ' + '{"a":' * 70,
        ],
    )
    def test_what_is_none_is_shown(self, text: str):
        (event,) = read(parser_of("hermes"), *f"<tool_call>{text}</tool_call>")[-1:]
        written = f"<tool_call>{text}</tool_call>"
        if isinstance(event, CallBroken):
            pytest.fail("the call had begun")
        shown = read(parser_of("hermes"), written)
        assert "".join(event.text for event in shown if isinstance(event, ContentText | CallBroken)) == written

    @pytest.mark.parametrize("value", ["01", "tru", "nul", "+1", "1.", "'a'", '"\\x"', "{,}", "[1,]", '{"a" 1}'])
    def test_arguments_that_are_no_json_break_the_call(self, value: str):
        text = f'<tool_call>{{"name": "f", "arguments": {{"v": {value}}}}}</tool_call> and more'
        begun, arguments, broken, rest = read(parser_of("hermes"), *text)
        assert begun == CallBegun("f")
        assert arguments.text.startswith('{"v": ')
        assert broken.text + rest.text == text


class TestLlama:
    def test_an_object_with_a_known_name_is_a_call(self):
        assert calls_of(read(parser_of("llama3_json"), '{"name": "stop", "parameters": {}}')) == [Call("stop", {})]

    @pytest.mark.parametrize("text", ['{"name": "Bob", "age": 3}', '{"name": "bob", "parameters": {}}', "{}", "{ x"])
    def test_an_answer_in_json_is_an_answer(self, text: str):
        assert read(parser_of("llama3_json"), *text) == [ContentText(text)]

    def test_objects_may_follow_each_other_without_a_sign(self):
        text = '{"name": "stop", "parameters": {}}\n{"name": "get_weather", "parameters": {"days": 1}};'
        assert calls_of(read(parser_of("llama3_json"), *text)) == [Call("stop", {}), Call("get_weather", {"days": 1})]


class TestMistral:
    def test_the_older_form(self):
        assert calls_of(read(parser_of("mistral"), *OLD_MISTRAL(TWO))) == TWO

    def test_an_id_between_name_and_arguments(self):
        assert read(parser_of("mistral"), *"[TOOL_CALLS]f[CALL_ID]abcDEF123[ARGS]{}") == [
            CallBegun("f", "abcDEF123"),
            CallArguments("{}"),
        ]

    def test_ids_have_nine_letters_and_digits(self):
        ids = {TOOL_FORMATS["mistral"].new_id("f", 0) for _ in range(50)}
        assert len(ids) == 50
        assert all(len(call_id) == 9 and call_id.isalnum() and call_id.isascii() for call_id in ids)


def test_kimi_names_its_calls():
    text = "<|tool_call_begin|>functions.f:3<|tool_call_argument_begin|>{}<|tool_call_end|>"
    assert read(parser_of("kimi_k2"), *text) == [CallBegun("f", "functions.f:3"), CallArguments("{}")]
    assert TOOL_FORMATS["kimi_k2"].new_id("f", 2) == "functions.f:2"


class TestPythonic:
    @pytest.mark.parametrize(
        ("text", "call"),
        [
            ("stop(a=true, b=None, c=-2.5)", Call("stop", {"a": True, "b": None, "c": -2.5})),
            ("stop(a=[1, {'k': (2, 3)}])", Call("stop", {"a": [1, {"k": [2, 3]}]})),
            ("stop(a='(\\')', b=\"[\", c='''x'y\n''')", Call("stop", {"a": "(')", "b": "[", "c": "x'y\n"})),
            ("stop()", Call("stop", {})),
        ],
    )
    def test_literals(self, text: str, call: Call):
        assert calls_of(read(parser_of("pythonic"), *f" [{text}]")) == [call]

    @pytest.mark.parametrize(
        "text",
        ["[1, 2]", "[unknown(a=1)]", "[stop(1)]", "[stop(a=b)]", "[stop(**{})]", "[stop(a=f())]", "[stop(a=1", "[stop"],
    )
    def test_what_is_no_call_is_shown(self, text: str):
        assert read(parser_of("pythonic"), *text) == [ContentText(text)]


SCHEMA = {
    "type": "object",
    "$defs": {"Size": {"type": "integer"}},
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "ratio": {"type": "number"},
        "flag": {"type": "boolean"},
        "items": {"type": "array"},
        "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "either": {"type": ["integer", "string"]},
        "size": {"$ref": "#/$defs/Size"},
        "level": {"enum": [1, 2, "max"]},
        "anything": {},
    },
}


@pytest.mark.parametrize(
    ("argument", "written", "value"),
    [
        ("text", "5", "5"),
        ("text", "null", "null"),
        ("text", " a\n b ", " a\n b "),
        ("count", " 5 ", 5),
        ("count", "5.0", 5),
        ("count", "five", "five"),
        ("ratio", "2", 2),
        ("ratio", "2.5", 2.5),
        ("ratio", "NaN", "NaN"),
        ("flag", "True", True),
        ("flag", "false", False),
        ("items", "['a', None]", ["a", None]),
        ("items", '[{"k": 1}]', [{"k": 1}]),
        ("maybe", "null", None),
        ("maybe", "None", None),
        ("maybe", "7", "7"),
        ("either", "7", 7),
        ("either", "x", "x"),
        ("size", "3", 3),
        ("level", "2", 2),
        ("level", "max", "max"),
        ("anything", '{"a": 1}', {"a": 1}),
        ("anything", "x", "x"),
        ("undeclared", "12", "12"),
    ],
)
def test_plain_values_become_what_the_schema_says(argument: str, written: str, value: Any):
    parser = TOOL_FORMATS["qwen3_xml"].parser([Function("f", SCHEMA)])
    text = f"<function=f>\n<parameter={argument}>\n{written}\n</parameter>\n</function>"
    (call,) = calls_of(read(parser, *text))
    assert (json.dumps(call.arguments), call.name) == (json.dumps({argument: value}), "f")
