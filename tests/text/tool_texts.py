"""How models write tool calls, one writer for each format: what the parsers have to read back."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.text.tools import CallArguments, CallBegun, CallBroken, ContentText, Function, ToolEvent, ToolParser


@dataclass(frozen=True)
class Call:
    name: str
    arguments: dict[str, Any]


Write = Callable[[Sequence[Call]], str]


def _each(write: Callable[[Call], str], between: str = "\n") -> Write:
    return lambda calls: between.join(write(call) for call in calls)


def _json(call: Call, key: str = "arguments") -> str:
    return json.dumps({"name": call.name, key: call.arguments}, ensure_ascii=False)


def _dumped(call: Call) -> str:
    return json.dumps(call.arguments, ensure_ascii=False, indent=1)


def _plain(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _tagged(before: str, after: str) -> Callable[[Call], str]:
    def write(call: Call) -> str:
        parameters = "".join(
            f"<parameter={name}>\n{_plain(value)}\n</parameter>\n" for name, value in call.arguments.items()
        )
        return f"{before}<function={call.name}>\n{parameters}</function>{after}"

    return write


def _glm(call: Call) -> str:
    pairs = "".join(
        f"<arg_key>{name}</arg_key>\n<arg_value>{_plain(value)}</arg_value>\n" for name, value in call.arguments.items()
    )
    return f"<tool_call>{call.name}\n{pairs}</tool_call>"


def _minimax(calls: Sequence[Call]) -> str:
    invokes = "\n".join(
        f'<invoke name="{call.name}">\n'
        + "".join(f'<parameter name="{name}">{_plain(value)}</parameter>\n' for name, value in call.arguments.items())
        + "</invoke>"
        for call in calls
    )
    return f"<minimax:tool_call>\n{invokes}\n</minimax:tool_call>"


def _pythonic(calls: Sequence[Call]) -> str:
    written = (f"{call.name}({', '.join(f'{k}={v!r}' for k, v in call.arguments.items())})" for call in calls)
    return f"[{', '.join(written)}]"


def _fenced(call: Call) -> str:
    return f"<｜tool▁call▁begin｜>function<｜tool▁sep｜>{call.name}\n```json\n{_dumped(call)}\n```<｜tool▁call▁end｜>"


def _deepseek(write: Write) -> Write:
    return lambda calls: f"<｜tool▁calls▁begin｜>{write(calls)}<｜tool▁calls▁end｜>"


def _kimi(calls: Sequence[Call]) -> str:
    written = "".join(
        f"<|tool_call_begin|>functions.{call.name}:{index}<|tool_call_argument_begin|>{_dumped(call)}<|tool_call_end|>"
        for index, call in enumerate(calls)
    )
    return f"<|tool_calls_section_begin|>{written}<|tool_calls_section_end|>"


def _list(before: str, after: str = "") -> Write:
    return lambda calls: f"{before}[{', '.join(map(_json, calls))}]{after}"


WRITERS: Mapping[str, Write] = {
    "deepseek_v3": _deepseek(_each(_fenced)),
    "deepseek_v31": _deepseek(
        _each(lambda call: f"<｜tool▁call▁begin｜>{call.name}<｜tool▁sep｜>{_dumped(call)}<｜tool▁call▁end｜>", "")
    ),
    "glm45": _each(_glm),
    "granite": _list("<|tool_call|>"),
    "granite-20b-fc": _each(lambda call: f"<function_call> {_json(call)}", " "),
    "hermes": _each(lambda call: f"<tool_call>\n{_json(call)}\n</tool_call>"),
    "internlm": _each(lambda call: f"<|action_start|><|plugin|>\n{_json(call, 'parameters')}<|action_end|>"),
    "jamba": _list("<tool_calls>", "</tool_calls>"),
    "kimi_k2": _kimi,
    "llama3_json": lambda calls: "<|python_tag|>" + "; ".join(_json(call, "parameters") for call in calls),
    "llama4_pythonic": lambda calls: f"<|python_start|>{_pythonic(calls)}<|python_end|>",
    "minimax_m2": _minimax,
    "mistral": _each(lambda call: f"[TOOL_CALLS]{call.name}[ARGS]{_dumped(call)}", ""),
    "phi4_mini_json": _list("functools"),
    "pythonic": _pythonic,
    "qwen3_xml": _each(_tagged("<tool_call>\n", "\n</tool_call>")),
    "seed_oss": _each(_tagged("<seed:tool_call>\n", "\n</seed:tool_call>")),
}
"""Every format under one of its names."""

OLD_MISTRAL = _list("[TOOL_CALLS]")

TYPED = {"qwen3_xml", "seed_oss", "glm45", "minimax_m2"}
"""Formats that write values as plain text, so that only the schema says what they are."""

WHOLE_ANSWER = {"pythonic"}
"""Formats in which calls are recognised only at the beginning of an answer."""


def functions_of(calls: Sequence[Call]) -> list[Function]:
    """Functions whose schemas these calls meet; calls of one name must have arguments of the same types."""
    return [
        Function(
            call.name,
            {"type": "object", "properties": {name: _schema(value) for name, value in call.arguments.items()}},
        )
        for call in calls
    ]


def _schema(value: Any) -> dict[str, Any]:
    kinds = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}
    return {"type": kinds[type(value)]} if value is not None else {"type": ["string", "null"]}


def read(parser: ToolParser, *pieces: str) -> list[ToolEvent]:
    """All events, with those joined that tell pieces of one text."""
    joined: list[ToolEvent] = []
    for events in (*(parser.push(piece) for piece in pieces), parser.finish()):
        for event in events:
            match joined[-1:], event:
                case [ContentText(text)], ContentText(more):
                    joined[-1] = ContentText(text + more)
                case [CallArguments(text)], CallArguments(more):
                    joined[-1] = CallArguments(text + more)
                case _:
                    joined.append(event)
    return joined


def calls_of(events: Sequence[ToolEvent]) -> list[Call]:
    """The calls; their arguments must be JSON objects."""
    calls: list[Call] = []
    for event in events:
        match event:
            case CallBegun(name):
                calls.append(Call(name, {}))
            case CallArguments(text):
                calls[-1] = Call(calls[-1].name, json.loads(text))
            case CallBroken():
                raise AssertionError(event)
    return calls


def content_of(events: Sequence[ToolEvent]) -> str:
    return "".join(event.text for event in events if isinstance(event, ContentText))
