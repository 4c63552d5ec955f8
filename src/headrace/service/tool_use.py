"""How an answer may call functions: what it is held to, and how its calls are found."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams
from headrace.text.tools import (
    Function,
    ToolFormat,
    ToolParser,
    long_id,
    named_parser,
    named_schema,
    required_parser,
    required_schema,
)

StrictLevel = Literal["auto", "function", "parameter"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolUse:
    """What an answer is read for. `parser` None: for no calls.

    `demanded`: the answer is nothing but calls. `parallel` False: only the first call counts. `new_id` makes the id of
    a call from its function's name and its place among the calls. `openings` are the markers that can begin a call.
    `special_tokens`: the text must show special tokens, as some may be markers of calls.
    """

    parser: Callable[[], ToolParser] | None = None
    constraint: StructuredOutputsParams | None = None
    demanded: bool = False
    parallel: bool = True
    new_id: Callable[[str, int], str] = long_id
    openings: tuple[str, ...] = ()
    special_tokens: bool = False


NO_CALLS = ToolUse()


def function_of(tool: Mapping[str, Any]) -> Function:
    """The function of a tool as clients describe it."""
    function = tool["function"]
    return Function(function["name"], function.get("parameters"), strict=bool(function.get("strict")))


def calls_if_wanted(
    form: ToolFormat,
    functions: Sequence[Function],
    *,
    parallel: bool,
    strict_level: StrictLevel,
    answer: StructuredOutputsParams | None,
) -> ToolUse:
    """The model decides. A call that it begins has the name of a function and, of a strict one, the arguments of its
    schema; `strict_level` asks for as much of functions that are not strict.

    Where the answer has to be JSON by `answer`, it is that or calls, and all of these follow their schemas.
    Raises `BadRequest` for strict functions where this format cannot be held to anything.
    """
    constraint = None
    if answer is not None:
        constraint = _answer_or_calls(answer, form, functions, parallel=parallel)
    elif strict_level != "auto" or any(function.strict for function in functions):
        constraint = _text_with_calls(form, functions, parallel=parallel, strict_level=strict_level)
    return ToolUse(
        parser=lambda: form.parser(functions),
        constraint=constraint,
        parallel=parallel,
        new_id=form.new_id,
        openings=form.openings,
        special_tokens=form.special_tokens,
    )


def _text_with_calls(
    form: ToolFormat, functions: Sequence[Function], *, parallel: bool, strict_level: StrictLevel
) -> StructuredOutputsParams:
    if form.tags is None:
        raise BadRequest(
            "On this server functions with strict=true need tool_choice 'required', or one of them by name: in the "
            "format of its --tool-call-parser, calls that the model makes by itself cannot be constrained.",
            parameter="tools",
        )
    tags = form.tags(
        [
            function if function.strict or strict_level == "parameter" else replace(function, parameters={})
            for function in functions
        ]
    )
    triggers = [form.trigger] if form.trigger is not None else [tag["begin"] for tag in tags]
    free = {"type": "triggered_tags", "triggers": triggers, "tags": list(tags), "stop_after_first": not parallel}
    return _of_tools(structural_tag={"type": "structural_tag", "format": free})


def _of_tools(**kind: Any) -> StructuredOutputsParams:
    """A constraint that leaves no room for arguments which a function does not name: models lose themselves in them."""
    return StructuredOutputsParams(**kind, disable_additional_properties=True, parameter="tools")


def _answer_or_calls(
    answer: StructuredOutputsParams, form: ToolFormat, functions: Sequence[Function], *, parallel: bool
) -> StructuredOutputsParams:
    """`answer` itself where it is no JSON, or calls cannot be constrained: then there can be none."""
    schema = answer.json if answer.json is not None else {"type": "object"} if answer.json_object else None
    if isinstance(schema, str):
        schema = json.loads(schema)
    if form.tags is None or schema is None:
        return answer
    calls = {
        "type": "tags_with_separator",
        "tags": list(form.tags(functions)),
        "separator": "\n",
        "at_least_one": True,
        "stop_after_first": not parallel,
    }
    either = {"type": "or", "elements": [{"type": "json_schema", "json_schema": schema}, calls]}
    tag = {"type": "structural_tag", "format": either}
    return replace(answer, json=None, json_object=None, structural_tag=tag)


def calls_required(form: ToolFormat | None, functions: Sequence[Function], *, parallel: bool) -> ToolUse:
    """One call or more, of functions the model chooses."""
    schema = required_schema(functions, parallel=parallel)
    return ToolUse(
        parser=required_parser,
        constraint=_of_tools(json=schema),
        demanded=True,
        parallel=parallel,
        new_id=long_id if form is None else form.new_id,
    )


def call_of(form: ToolFormat | None, function: Function) -> ToolUse:
    """One call of `function`."""
    return ToolUse(
        parser=lambda: named_parser(function.name),
        constraint=_of_tools(json=named_schema(function)),
        demanded=True,
        new_id=long_id if form is None else form.new_id,
    )
