"""What a chat asks of tools, for the service."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.openai.schema import ChatRequest, NamedFunction
from headrace.config.sections import ApiConfig
from headrace.core.errors import BadRequest
from headrace.core.request import FinishReason
from headrace.core.structured import StructuredOutputsParams
from headrace.service.answers import AnswerFormats
from headrace.service.tool_use import NO_CALLS, ToolUse, call_of, calls_if_wanted, calls_required, function_of

CALLED = "tool_calls"
"""The finish reason of an answer that calls tools."""


def tool_use(
    body: ChatRequest, formats: AnswerFormats, config: ApiConfig, answer: StructuredOutputsParams | None
) -> ToolUse:
    """`answer` is what the text has to be where no tool is called.

    Raises `BadRequest` for tools that make no sense, and for a choice that this server was not set up for.
    """
    _check(body)
    if not body.tools or body.tool_choice == "none":
        return NO_CALLS
    functions = [function_of(tool) for tool in body.tools]
    if body.tool_choice not in (None, "auto") and answer is not None:
        raise BadRequest(
            f"Either {answer.parameter} or a tool_choice that demands calls can constrain the answer, not both.",
            parameter="tool_choice",
        )
    match body.tool_choice:
        case NamedFunction(name):
            return call_of(formats.tools, next(function for function in functions if function.name == name))
        case "required":
            return calls_required(formats.tools, functions, parallel=body.parallel_tool_calls)
    if not config.enable_auto_tool_choice or formats.tools is None:
        raise BadRequest(
            '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set',
            parameter="tool_choice",
        )
    return calls_if_wanted(
        formats.tools,
        functions,
        parallel=body.parallel_tool_calls,
        strict_level=formats.strict_level,
        answer=answer,
    )


def shown_tools(body: ChatRequest, config: ApiConfig) -> list[Mapping[str, Any]] | None:
    """The tools that the model is to see."""
    hidden = body.tool_choice == "none" and config.exclude_tools_when_tool_choice_none
    return None if hidden or body.tools is None else [dict(tool) for tool in body.tools]


def finish_reason(
    reason: FinishReason | None, body: ChatRequest, calls: int, *, streamed: bool
) -> FinishReason | str | None:
    """As clients are to see it. An answer that was cut short after a whole call has called, unless it is streamed: then
    more of the call may have been to come.
    """
    if not calls or isinstance(body.tool_choice, NamedFunction):
        return reason
    called = reason is FinishReason.STOP
    if reason is FinishReason.LENGTH and body.tool_choice != "required":
        called = not streamed
    return CALLED if called else reason


def _check(body: ChatRequest) -> None:
    if body.tools is not None and not body.tools:
        raise BadRequest("tools must not be empty; leave it out if there are none.", parameter="tools", value=[])
    if body.tool_choice is None or body.tool_choice == "none":
        return
    if body.tools is None:
        raise BadRequest("When using `tool_choice`, `tools` must be set.", parameter="tool_choice")
    if isinstance(chosen := body.tool_choice, NamedFunction):
        names = [tool["function"]["name"] for tool in body.tools]
        if chosen.name not in names:
            raise BadRequest(
                f"tool_choice names {chosen.name!r}, which is none of the tools: {', '.join(names)}.",
                parameter="tool_choice",
                value=chosen.name,
            )
