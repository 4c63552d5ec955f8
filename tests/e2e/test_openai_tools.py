"""The official `openai` client with tools, pydantic models and its streaming helpers, against the real server."""

from __future__ import annotations

import json
from collections.abc import Iterator

import openai
import pytest
from openai import OpenAI, pydantic_function_tool
from tool_traffic import A_CALL, MESSAGES, STOP_TOOL, WEATHER_TOOL, GetWeather, Report, Stop

TOOLS = [WEATHER_TOOL, STOP_TOOL]
OPTIONS = {"model": "smol", "messages": MESSAGES, "temperature": 0, "max_tokens": 120}
NAMED = {"type": "function", "function": {"name": "GetWeather"}}


@pytest.fixture
def client(tool_server) -> Iterator[OpenAI]:
    with tool_server.client() as client:
        yield client


def test_parse_a_response_format(client: OpenAI):
    (choice,) = client.chat.completions.parse(**OPTIONS, response_format=Report).choices
    assert isinstance(choice.message.parsed, Report)
    assert choice.finish_reason == "stop"


@pytest.mark.parametrize("choice", ["required", NAMED])
def test_parse_calls(client: OpenAI, choice):
    tools = [pydantic_function_tool(GetWeather), pydantic_function_tool(Stop)]
    completion = client.chat.completions.parse(**OPTIONS, tools=tools, tool_choice=choice, parallel_tool_calls=False)
    (answer,) = completion.choices
    assert answer.finish_reason == ("tool_calls" if choice == "required" else "stop")
    assert answer.message.tool_calls
    for call in answer.message.tool_calls:
        assert isinstance(call.function.parsed_arguments, GetWeather | Stop)
        assert call.id.startswith("chatcmpl-tool-")


def test_strict_tools_that_the_model_may_call(client: OpenAI):
    tools = [pydantic_function_tool(GetWeather)]
    (answer,) = client.chat.completions.parse(**OPTIONS, tools=tools, stop=[".", "\n"]).choices
    for call in answer.message.tool_calls or []:
        assert isinstance(call.function.parsed_arguments, GetWeather)
    assert answer.message.tool_calls or answer.message.content


def test_a_call_that_the_model_makes_by_itself(client: OpenAI):
    extra = {"structured_outputs": {"regex": A_CALL}}
    (choice,) = client.chat.completions.create(**OPTIONS, tools=TOOLS, extra_body=extra).choices
    (call,) = choice.message.tool_calls
    GetWeather.model_validate_json(call.function.arguments)
    assert (choice.message.content, choice.finish_reason) == ("Let me see.", "tool_calls")

    chunks = list(client.chat.completions.create(**OPTIONS, tools=TOOLS, extra_body=extra, stream=True))
    parts = [part for chunk in chunks for part in chunk.choices[0].delta.tool_calls or []]
    assert [part.index for part in parts] == [0] * len(parts)
    assert (parts[0].function.name, parts[0].type) == ("GetWeather", "function")
    assert all(part.id is None and part.function.name is None for part in parts[1:])
    assert "".join(part.function.arguments for part in parts) == call.function.arguments
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Let me see."
    assert chunks[-1].choices[0].finish_reason == "tool_calls"


def test_a_stream_of_demanded_calls_is_the_answer(client: OpenAI):
    options = {**OPTIONS, "tools": TOOLS, "tool_choice": "required", "parallel_tool_calls": False}
    whole = client.chat.completions.create(**options).choices[0].message.tool_calls
    joined: list[dict[str, str]] = []
    for chunk in client.chat.completions.create(**options, stream=True):
        for part in chunk.choices[0].delta.tool_calls or []:
            if part.index == len(joined):
                joined.append({"name": part.function.name, "arguments": ""})
            joined[part.index]["arguments"] += part.function.arguments
    assert joined == [{"name": call.function.name, "arguments": call.function.arguments} for call in whole]
    assert all(json.loads(call["arguments"]) for call in joined)


def test_streaming_helper_with_a_response_format(client: OpenAI):
    with client.chat.completions.stream(**OPTIONS, response_format=Report) as stream:
        kinds = [event.type for event in stream]
        final = stream.get_final_completion()
    assert "content.delta" in kinds
    assert "content.done" in kinds
    assert isinstance(final.choices[0].message.parsed, Report)


def test_streaming_helper_with_tools(client: OpenAI):
    tools = [pydantic_function_tool(GetWeather), pydantic_function_tool(Stop)]
    with client.chat.completions.stream(
        **OPTIONS, tools=tools, tool_choice="required", parallel_tool_calls=False
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event for event in events if event.type == "tool_calls.function.arguments.delta"]
    done = [event for event in events if event.type == "tool_calls.function.arguments.done"]
    calls = final.choices[0].message.tool_calls
    assert [event.arguments for event in done] == [call.function.arguments for call in calls]
    assert "".join(event.arguments_delta for event in deltas if event.index == 0) == calls[0].function.arguments
    assert all(isinstance(call.function.parsed_arguments, GetWeather | Stop) for call in calls)


def test_the_result_of_a_call_goes_back_to_the_model(client: OpenAI):
    options = {**OPTIONS, "tools": TOOLS}
    message = client.chat.completions.create(**options, tool_choice=NAMED).choices[0].message
    answered = [
        *MESSAGES,
        message,
        {"role": "tool", "tool_call_id": message.tool_calls[0].id, "content": "Rain, 7 degrees."},
    ]
    body = {**options, "messages": answered, "max_tokens": 8}
    completion = client.chat.completions.create(**body, tool_choice="none", extra_body={"return_prompt_text": True})
    prompt = completion.model_extra["prompt_text"]
    assert '<tool_call>\n{"name": "GetWeather", "arguments": {"city":' in prompt
    assert "<tool_response>\nRain, 7 degrees.\n</tool_response>" in prompt
    assert completion.choices[0].message.content


def test_several_choices(client: OpenAI):
    options = {**OPTIONS, "temperature": 1, "seed": 5, "n": 3, "tools": TOOLS, "tool_choice": NAMED}
    choices = client.chat.completions.create(**options).choices
    assert [choice.index for choice in choices] == [0, 1, 2]
    for choice in choices:
        (call,) = choice.message.tool_calls
        GetWeather.model_validate_json(call.function.arguments)


def test_a_template_of_the_request(client: OpenAI):
    extra = {"chat_template": "{{ messages[0].content | upper }}", "return_prompt_text": True}
    completion = client.chat.completions.create(**{**OPTIONS, "max_tokens": 1}, extra_body=extra)
    assert completion.model_extra["prompt_text"] == MESSAGES[0]["content"].upper()
    with pytest.raises(openai.BadRequestError, match="syntax error at line 1"):
        client.chat.completions.create(**OPTIONS, extra_body={"chat_template": "{% if %}"})


def test_tools_that_this_server_was_not_set_up_for(server):
    with server.client() as plain, pytest.raises(openai.BadRequestError, match="--enable-auto-tool-choice"):
        plain.chat.completions.create(**OPTIONS, tools=TOOLS)
