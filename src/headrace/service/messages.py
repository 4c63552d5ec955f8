"""Messages as clients send them, made into what chat templates expect."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.core.errors import BadRequest
from headrace.service.parts import Part, read_parts, text_of
from headrace.service.types import Message

Content = str | list[Part]

_REASONING = ("reasoning", "reasoning_content")
"""What templates and clients call the thoughts that led to an answer."""


def prepare_messages(
    messages: Sequence[Message], *, content_format: str, keep_developer: bool, model_name: str
) -> list[dict[str, Any]]:
    """The messages for a template whose `content_format` is "string" or "openai".

    Content becomes a text or a list of parts accordingly; a missing one is empty. Arguments of tool calls, which
    clients send as JSON text, become objects; text that is no JSON, as of a call that was cut short, an empty one.
    Reasoning stands under both of its names. Fields that are null are left out. Unless `keep_developer`, messages of
    the role "developer" are merged with the system messages into one, at the beginning.
    Raises `BadRequest` naming the message.
    """
    if not messages:
        raise BadRequest("messages must not be empty.", parameter="messages")
    prepared = [
        _prepare(message, f"messages[{index}]", content_format, model_name) for index, message in enumerate(messages)
    ]
    if keep_developer or all(message["role"] != "developer" for message in prepared):
        return prepared
    return _merge_instructions(prepared)


def _prepare(message: Message, place: str, content_format: str, model_name: str) -> dict[str, Any]:
    if not isinstance(message, Mapping):
        raise BadRequest(f"{place} must be an object with a role.", parameter="messages")
    role = message.get("role")
    if not isinstance(role, str) or not role:
        raise BadRequest(f"{place}.role must be a text that is not empty.", parameter="messages")
    prepared = {key: value for key, value in message.items() if value is not None}
    parts = read_parts(message.get("content"), f"{place}.content", model_name)
    # Templates print a tool's result as it is, also those that loop over the parts of other roles.
    prepared["content"] = text_of(parts) if content_format == "string" or role == "tool" else parts
    if tool_calls := prepared.pop("tool_calls", None):
        prepared["tool_calls"] = _tool_calls(tool_calls, f"{place}.tool_calls")
    given = [prepared[name] for name in _REASONING if name in prepared]
    return {**prepared, **dict.fromkeys(_REASONING, given[0])} if given else prepared


def _tool_calls(calls: object, place: str) -> list[dict[str, Any]]:
    if not isinstance(calls, list):
        raise BadRequest(f"{place} must be a list.", parameter="messages")
    return [_tool_call(call, f"{place}[{index}]") for index, call in enumerate(calls)]


def _tool_call(call: object, place: str) -> dict[str, Any]:
    if not isinstance(call, Mapping) or not isinstance(call.get("function"), Mapping):
        raise BadRequest(f"{place} must be an object with a function.", parameter="messages")
    function = call["function"]
    arguments = _arguments(function.get("arguments"), f"{place}.function.arguments")
    return {**call, "function": {**function, "arguments": arguments}}


def _arguments(arguments: object, place: str) -> Any:
    if isinstance(arguments, str) and arguments:
        try:
            arguments = json.loads(arguments)
        except (ValueError, RecursionError):
            arguments = {}
    arguments = arguments or {}
    if not isinstance(arguments, Mapping):
        raise BadRequest(f"{place} must be a JSON object.", parameter="messages")
    return arguments


def _merge_instructions(messages: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    instructions = [message for message in messages if message["role"] in ("system", "developer")]
    others = [message for message in messages if message["role"] not in ("system", "developer")]
    contents: list[Content] = [message["content"] for message in instructions]
    return [{**instructions[0], "role": "system", "content": _joined(contents)}, *others]


def _joined(contents: Sequence[Content]) -> Content:
    if isinstance(contents[0], str):
        return "\n\n".join(content for content in contents if isinstance(content, str) and content)
    return [part for content in contents if isinstance(content, list) for part in content]
