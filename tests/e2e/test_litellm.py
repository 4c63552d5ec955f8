"""LiteLLM against the real server: plain, streamed, with tools and a response format."""

from __future__ import annotations

from typing import Any

import pytest
from tool_traffic import A_CALL, MESSAGES, STOP_TOOL, WEATHER_TOOL, GetWeather, Report, Stop


@pytest.fixture
def complete(tool_server, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")  # it would be fetched from the network
    import litellm  # seconds, which only these tests need

    def call(**options: Any) -> Any:
        settings = {"temperature": 0, "max_tokens": 120, "num_retries": 0, "messages": MESSAGES, **options}
        return litellm.completion(model="openai/smol", api_base=f"{tool_server.url}/v1", api_key="EMPTY", **settings)

    return call


def test_a_stream_is_the_answer(complete):
    whole = complete(max_tokens=24)
    chunks = list(complete(max_tokens=24, stream=True))
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == whole.choices[0].message.content
    assert whole.usage.completion_tokens == 24


def test_tools(complete):
    options = {"tools": [WEATHER_TOOL, STOP_TOOL], "tool_choice": "required", "parallel_tool_calls": False}
    calls = complete(**options).choices[0].message.tool_calls
    for call in calls:
        {"GetWeather": GetWeather, "Stop": Stop}[call.function.name].model_validate_json(call.function.arguments)
    arguments = ""
    for chunk in complete(**options, stream=True):
        for part in chunk.choices[0].delta.tool_calls or []:
            if part.index == 0:
                arguments += part.function.arguments or ""
    assert arguments == calls[0].function.arguments


def test_a_call_that_the_model_makes_by_itself(complete):
    options = {"tools": [WEATHER_TOOL], "extra_body": {"structured_outputs": {"regex": A_CALL}}}
    (choice,) = complete(**options).choices
    assert choice.finish_reason == "tool_calls"
    GetWeather.model_validate_json(choice.message.tool_calls[0].function.arguments)


def test_a_response_format(complete):
    Report.model_validate_json(complete(response_format=Report).choices[0].message.content)
