"""Reasoning in chat answers: apart from the text, in both modes, counted, and hidden where that is asked for."""

from __future__ import annotations

from typing import Any

import pytest

TOOLS = [{"type": "function", "function": {"name": "stop", "parameters": {"type": "object", "properties": {}}}}]
SCHEMA = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}


@pytest.fixture
def r1(make_app):
    return make_app(model={"reasoning_parser": "deepseek_r1"})


@pytest.fixture
def qwen(make_app):
    return make_app(
        model={"reasoning_parser": "qwen3", "tool_call_parser": "hermes"}, api={"enable_auto_tool_choice": True}
    )


def streamed(events: list[dict[str, Any]]) -> tuple[str, str]:
    deltas = [event["choices"][0]["delta"] for event in events if event["choices"]]
    for delta in deltas:
        assert delta.get("reasoning") == delta.get("reasoning_content")
    return "".join(d.get("reasoning") or "" for d in deltas), "".join(d.get("content") or "" for d in deltas)


@pytest.mark.parametrize("text", ["<think>\nHm, one moment.\n</think>\n\nYes.", "Hm, one moment.</think>Yes."])
def test_thoughts_and_answer(r1, text):
    r1.says(text)
    (choice,) = r1.chat()["choices"]
    message = choice["message"]
    assert (message["reasoning"], message["reasoning_content"]) == ("Hm, one moment.", "Hm, one moment.")
    assert (message["content"], choice["finish_reason"]) == ("Yes.", "stop")
    assert streamed(r1.stream_chat()) == ("Hm, one moment.", "Yes.")


def test_without_an_end_everything_is_thought(r1):
    r1.says("Hm, and so on")
    message = r1.chat()["choices"][0]["message"]
    assert (message["reasoning"], message["content"]) == ("Hm, and so on", None)
    assert streamed(r1.stream_chat()) == ("Hm, and so on", "")


def test_no_parser_no_reasoning(app):
    app.says("<think>Hm</think>Yes.")
    message = app.chat()["choices"][0]["message"]
    assert (message["content"], message["reasoning"]) == ("<think>Hm</think>Yes.", None)
    assert "reasoning_content" not in message
    assert app.chat()["usage"]["completion_tokens_details"] is None


def test_tokens_of_thoughts_are_counted(r1):
    thought = r1.says("<think>Hm, one moment.</think>")
    r1.says("<think>Hm, one moment.</think>Yes.")
    usage = r1.chat()["usage"]
    assert usage["completion_tokens_details"] == {"reasoning_tokens": len(thought)}
    *_, last = r1.stream_chat(stream_options={"include_usage": True})
    assert last["usage"]["completion_tokens_details"] == {"reasoning_tokens": len(thought)}
    assert r1.chat(n=2)["usage"]["completion_tokens_details"] == {"reasoning_tokens": 2 * len(thought)}


def test_thoughts_that_are_not_wanted_are_left_out_with_their_tokens(r1):
    thought = r1.says("<think>Hm.</think>")
    ids = r1.says("<think>Hm.</think>Yes.")
    options = {"include_reasoning": False, "logprobs": True, "return_token_ids": True}
    body = r1.chat(**options)
    (choice,) = body["choices"]
    assert (choice["message"]["reasoning"], choice["message"]["content"]) == (None, "Yes.")
    assert "reasoning_content" not in choice["message"]
    assert choice["token_ids"][:-1] == ids[len(thought) :]
    assert len(choice["logprobs"]["content"]) == len(choice["token_ids"])
    assert body["usage"]["completion_tokens"] == len(ids) + 1
    _, *pieces = r1.stream_chat(**options)
    assert streamed(pieces) == ("", "Yes.")
    assert [token for piece in pieces for token in piece["choices"][0]["token_ids"]] == choice["token_ids"]


def test_stream_has_thoughts_first_and_no_tags(r1):
    r1.says("<think>\nHm.\n</think>\n\nYes.")
    kinds = [
        name
        for event in r1.stream_chat()[1:]
        for name in ("reasoning", "content")
        if event["choices"][0]["delta"].get(name)
    ]
    assert kinds == sorted(kinds, reverse=True)


class TestSwitch:
    def test_thinking_that_is_off_leaves_text_as_it_is(self, qwen):
        qwen.says("Yes.")
        message = qwen.chat(chat_template_kwargs={"enable_thinking": False})["choices"][0]["message"]
        assert (message["content"], message["reasoning"]) == ("Yes.", None)
        assert qwen.chat()["choices"][0]["message"]["content"] is None

    def test_no_effort_is_no_thinking(self, qwen):
        qwen.says("Yes.")
        assert qwen.chat(reasoning_effort="none")["choices"][0]["message"]["content"] == "Yes."

    def test_the_server_can_turn_it_off(self, make_app):
        app = make_app(
            model={"reasoning_parser": "qwen3"}, api={"default_chat_template_kwargs": {"enable_thinking": False}}
        )
        app.says("Yes.")
        assert app.chat()["choices"][0]["message"]["content"] == "Yes."
        back_on = app.chat(chat_template_kwargs={"enable_thinking": True})
        assert back_on["choices"][0]["message"]["reasoning"] == "Yes."


class TestPrefill:
    """The last message is written on; what it holds decides where the answer begins."""

    OPEN = {"add_generation_prompt": False, "continue_final_message": True}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("begun", "reasoning", "content"),
        [
            ("<think>So", "Hm.", "Yes."),
            ("<think>So</think>", None, "Hm.</think>Yes."),
            ("So", None, "Hm.</think>Yes."),
        ],
    )
    def test_continued(self, r1, begun, reasoning, content):
        r1.says("Hm.</think>Yes.")
        messages = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": begun}]
        message = r1.chat(messages=messages, **self.OPEN)["choices"][0]["message"]
        assert (message["reasoning"], message["content"]) == (reasoning, content)


class TestCalls:
    CALL = '<tool_call>{"name": "stop", "arguments": {}}</tool_call>'

    @pytest.mark.parametrize("text", [f"Hm.</think>\n\n{CALL}", f"Hm.{CALL}"])
    def test_after_thoughts(self, qwen, text):
        qwen.says(text)
        (choice,) = qwen.chat(tools=TOOLS)["choices"]
        assert choice["message"]["reasoning"] == "Hm."
        assert choice["message"]["content"] is None
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "stop", "arguments": "{}"}
        assert choice["finish_reason"] == "tool_calls"
        events = qwen.stream_chat(tools=TOOLS)
        assert streamed(events) == ("Hm.", "")
        assert any(event["choices"][0]["delta"].get("tool_calls") for event in events)

    def test_a_call_within_thoughts_is_a_thought_where_calls_are_demanded(self, qwen):
        qwen.says(f'I could {self.CALL}</think>[{{"name": "stop", "parameters": {{}}}}]')
        (choice,) = qwen.chat(tools=TOOLS, tool_choice="required")["choices"]
        assert choice["message"]["reasoning"] == f"I could {self.CALL}"
        assert [call["function"]["name"] for call in choice["message"]["tool_calls"]] == ["stop"]


class TestConstraints:
    """What the engine is held to begins behind the thoughts."""

    def test_free_thoughts_before_the_schema(self, r1, app):
        r1.says("Hm.</think>{}")
        message = r1.chat(response_format=SCHEMA)["choices"][0]["message"]
        assert (message["reasoning"], message["content"]) == ("Hm.", "{}")
        app.says("{}")
        app.chat(response_format=SCHEMA)
        free, bound = r1.engine.requests[-1].sampling.grammar, app.engine.requests[-1].sampling.grammar
        assert "</think>" in free
        assert "</think>" not in bound

    def test_no_thoughts_no_delay(self, qwen):
        qwen.says("{}")
        qwen.chat(response_format=SCHEMA, chat_template_kwargs={"enable_thinking": False})
        assert "</think>" not in qwen.engine.requests[-1].sampling.grammar
