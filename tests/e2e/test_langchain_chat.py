"""LangChain's `ChatOpenAI` against the real server: streaming, tools, structured output."""

from __future__ import annotations

import pytest
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_openai import ChatOpenAI
from tool_traffic import GetWeather, Report, Stop

QUESTION = "How is the weather in Bergen for the next three days?"


@pytest.fixture
def model(tool_server) -> ChatOpenAI:
    return ChatOpenAI(
        model="smol", base_url=f"{tool_server.url}/v1", api_key="EMPTY", temperature=0, max_tokens=120, max_retries=0
    )


def test_a_stream_is_the_answer(model: ChatOpenAI):
    short = model.bind(max_tokens=24)
    chunks = list(short.stream(QUESTION))
    whole = short.invoke(QUESTION)
    assert len(chunks) > 5
    assert "".join(chunk.content for chunk in chunks) == whole.content
    assert whole.usage_metadata["output_tokens"] == 24


@pytest.mark.parametrize("choice", ["any", "GetWeather"])
def test_tools(model: ChatOpenAI, choice: str):
    bound = model.bind_tools([GetWeather, Stop], tool_choice=choice, parallel_tool_calls=False)
    message = bound.invoke(QUESTION)
    assert message.tool_calls
    for call in message.tool_calls:
        {"GetWeather": GetWeather, "Stop": Stop}[call["name"]].model_validate(call["args"])
    streamed = None
    for chunk in bound.stream(QUESTION):
        streamed = chunk if streamed is None else streamed + chunk
    assert [(call["name"], call["args"]) for call in streamed.tool_calls] == [
        (call["name"], call["args"]) for call in message.tool_calls
    ]


def test_a_conversation_with_a_result(model: ChatOpenAI):
    asked = model.bind_tools([GetWeather], tool_choice="GetWeather").invoke(QUESTION)
    result = ToolMessage("Rain, 7 degrees.", tool_call_id=asked.tool_calls[0]["id"])
    answer = model.bind(max_tokens=8).invoke([HumanMessage(QUESTION), asked, result])
    assert isinstance(answer, AIMessage)
    assert answer.content


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
def test_structured_output(model: ChatOpenAI, method: str):
    assert isinstance(model.with_structured_output(Report, method=method).invoke(QUESTION), Report)


def test_structured_output_by_json_mode(model: ChatOpenAI):
    structured = model.with_structured_output(Report, method="json_mode", include_raw=True)
    result = structured.invoke("Answer with a short JSON object.")
    assert result["raw"].content.lstrip().startswith("{")
