"""What calls are held to: the grammars take what each format writes, and nothing that breaks a function's schema."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from headrace.core.structured import StructuredOutputsParams
from headrace.grammar.backend import build_tokenizer, new_matcher
from headrace.grammar.compiler import GrammarCompiler
from headrace.service.tool_use import call_of, calls_if_wanted, calls_required
from headrace.text import Tokenizer
from headrace.text.tools import TOOL_FORMATS, Function

SCHEMA = {
    "type": "object",
    "$defs": {"Days": {"type": "integer", "minimum": 1, "maximum": 7}},
    "properties": {"city": {"type": "string"}, "days": {"$ref": "#/$defs/Days"}, "unit": {"enum": ["C", "F"]}},
    "required": ["city", "days"],
}
WEATHER = Function("get_weather", SCHEMA, strict=True)
STOP = Function("stop", strict=True)
FUNCTIONS = [WEATHER, STOP]

CALLS = {
    "deepseek_v3": "<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_weather\n```json\n{args}\n```<｜tool▁call▁end｜>",
    "deepseek_v31": "<｜tool▁call▁begin｜>get_weather<｜tool▁sep｜>{args}<｜tool▁call▁end｜>",
    "granite": '<|tool_call|>[{"name": "get_weather", "arguments": {args}}]',
    "granite-20b-fc": '<function_call> {"name": "get_weather", "arguments": {args}}',
    "hermes": '<tool_call>\n{"name": "get_weather", "arguments": {args}}\n</tool_call>',
    "internlm": '<|action_start|><|plugin|>{"name": "get_weather", "parameters": {args}}<|action_end|>',
    "jamba": '<tool_calls>[{"name": "get_weather", "arguments": {args}}]</tool_calls>',
    "kimi_k2": "<|tool_call_begin|>functions.get_weather:0<|tool_call_argument_begin|>{args}<|tool_call_end|>",
    "llama3_json": '{"name": "get_weather", "parameters": {args}}',
    "mistral": "[TOOL_CALLS]get_weather[ARGS]{args}",
    "phi4_mini_json": 'functools[{"name": "get_weather", "arguments": {args}}]',
}
"""Formats with the arguments as JSON, in the place of `{args}`."""

TAGGED = {
    "glm45": (
        "<tool_call>get_weather\n",
        "<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n",
        "</tool_call>",
    ),
    "minimax_m2": (
        '<minimax:tool_call>\n<invoke name="get_weather">\n',
        '<parameter name="{key}">{value}</parameter>\n',
        "</invoke>\n</minimax:tool_call>",
    ),
    "qwen3_xml": (
        "<tool_call>\n<function=get_weather>\n",
        "<parameter={key}>\n{value}\n</parameter>\n",
        "</function>\n</tool_call>",
    ),
}
"""What stands before, around and behind arguments that are written one by one."""

Accepts = Callable[[StructuredOutputsParams, str], bool]


@pytest.fixture(scope="module")
def accepts(tokenizer: Tokenizer) -> Accepts:
    """Whether a whole answer meets a constraint."""
    vocabulary = tokenizer.vocabulary([tokenizer.eos_token_id])
    compiler = GrammarCompiler(vocabulary, tokenizer.vocab_size)
    backend = build_tokenizer(vocabulary, tokenizer.vocab_size)

    def check(params: StructuredOutputsParams, text: str) -> bool:
        matcher = new_matcher(backend, compiler.compile(params))
        ids = tokenizer.encode(text, add_special_tokens=False)
        return matcher.consume_tokens(ids) and matcher.is_accepting()

    return check


def strict(name: str, *, parallel: bool = True) -> StructuredOutputsParams:
    use = calls_if_wanted(TOOL_FORMATS[name], FUNCTIONS, parallel=parallel, strict_level="auto", answer=None)
    assert use.constraint is not None
    return use.constraint


def tagged(name: str, arguments: Sequence[tuple[str, str]]) -> str:
    before, around, behind = TAGGED[name]
    return before + "".join(around.format(key=key, value=value) for key, value in arguments) + behind


@pytest.mark.parametrize("name", CALLS)
def test_arguments_as_json(accepts: Accepts, name: str):
    constraint = strict(name)
    lead = "" if name == "llama3_json" else "Let me see. "

    def held(arguments: str) -> bool:
        return accepts(constraint, lead + CALLS[name].replace("{args}", arguments))

    assert held('{"city": "Bergen", "days": 3}')
    assert held('{"city": "Bergen", "days": 3, "unit": "C"}')
    assert not held('{"city": "Bergen", "days": 8}')
    assert not held('{"city": "Bergen"}')
    assert not held('{"city": "Bergen", "days": 3, "more": 1}')
    assert not accepts(constraint, CALLS[name].replace("get_weather", "get_whether").replace("{args}", "{}"))
    assert accepts(constraint, "No call is needed.")


@pytest.mark.parametrize("name", TAGGED)
def test_arguments_between_tags(accepts: Accepts, name: str):
    constraint = strict(name)
    assert accepts(constraint, "Let me see. " + tagged(name, [("city", "Bergen"), ("days", "3")]))
    assert accepts(constraint, tagged(name, [("city", "Bergen"), ("days", "3"), ("unit", "F")]))
    assert not accepts(constraint, tagged(name, [("city", "Bergen"), ("days", "9")]))
    assert not accepts(constraint, tagged(name, [("city", "Bergen")]))
    assert not accepts(constraint, tagged(name, [("city", "Bergen"), ("days", "3"), ("unit", "K")]))


def test_arguments_in_python(accepts: Accepts):
    constraint = strict("pythonic")
    assert accepts(constraint, '[get_weather(city="Bergen", days=3)]')
    assert accepts(constraint, '[get_weather(city="Bergen", days=3, unit="C")]')
    assert accepts(constraint, "[stop()]")
    assert not accepts(constraint, "[get_weather(days=3)]")
    assert not accepts(constraint, "[stop(a=1)]")


def test_one_call_where_only_one_is_wanted(accepts: Accepts):
    call = CALLS["hermes"].replace("{args}", '{"city": "Bergen", "days": 3}')
    assert accepts(strict("hermes"), f"{call}\n{call}")
    assert accepts(strict("hermes", parallel=False), call)
    assert not accepts(strict("hermes", parallel=False), f"{call}\n{call}")


def test_only_what_is_strict_follows_its_schema(accepts: Accepts):
    loose = Function("loose", {"type": "object", "properties": {"n": {"type": "integer"}}})
    form = TOOL_FORMATS["hermes"]
    call = '<tool_call>\n{"name": "loose", "arguments": {"n": "many"}}\n</tool_call>'
    for level, held in (("auto", True), ("function", True), ("parameter", False)):
        use = calls_if_wanted(form, [WEATHER, loose], parallel=True, strict_level=level, answer=None)
        assert accepts(use.constraint, call) is held


def test_an_answer_in_json_or_calls(accepts: Accepts):
    answer = StructuredOutputsParams(json={"type": "object", "properties": {"ok": {"type": "boolean"}}})
    use = calls_if_wanted(TOOL_FORMATS["hermes"], [WEATHER], parallel=True, strict_level="auto", answer=answer)
    call = CALLS["hermes"].replace("{args}", '{"city": "Bergen", "days": 3}')
    assert accepts(use.constraint, '{"ok": true}')
    assert accepts(use.constraint, call)
    assert not accepts(use.constraint, f"Well. {call}")
    assert not accepts(use.constraint, '{"ok": 1}')


class TestDemanded:
    @pytest.mark.parametrize(
        ("text", "parallel", "held"),
        [
            ('[{"name": "stop", "parameters": {}}]', True, True),
            ('[{"name": "get_weather", "parameters": {"city": "x", "days": 7}}]', False, True),
            ('[{"name": "stop", "parameters": {}}, {"name": "stop", "parameters": {}}]', True, True),
            ('[{"name": "stop", "parameters": {}}, {"name": "stop", "parameters": {}}]', False, False),
            ('[{"name": "get_weather", "parameters": {"city": "x", "days": 8}}]', True, False),
            ('[{"name": "nobody", "parameters": {}}]', True, False),
            ('[{"name": "stop", "parameters": {"a": 1}}]', True, False),
            ("[]", True, False),
        ],
    )
    def test_required(self, accepts: Accepts, text: str, parallel: bool, held: bool):
        """References in a function's schema mean its own definitions."""
        assert accepts(calls_required(None, FUNCTIONS, parallel=parallel).constraint, text) is held

    def test_definitions_of_the_same_name_in_two_functions(self, accepts: Accepts):
        other = Function("other", {**SCHEMA, "$defs": {"Days": {"type": "boolean"}}})
        constraint = calls_required(None, [WEATHER, other], parallel=True).constraint
        assert accepts(constraint, '[{"name": "other", "parameters": {"city": "x", "days": true}}]')
        assert not accepts(constraint, '[{"name": "other", "parameters": {"city": "x", "days": 3}}]')

    @pytest.mark.parametrize(
        ("text", "held"), [('{"city": "x", "days": 7}', True), ('{"city": "x"}', False), ("{}", False), ("x", False)]
    )
    def test_named(self, accepts: Accepts, text: str, held: bool):
        assert accepts(call_of(None, WEATHER).constraint, text) is held


def test_constraints_say_whose_they_are():
    uses: list[Any] = [calls_required(None, FUNCTIONS, parallel=True), call_of(None, STOP)]
    assert {use.constraint.parameter for use in uses} == {"tools"}
    assert strict("hermes").parameter == "tools"
