"""Tool calls on /v1/chat/completions, whole and streamed, as the engine is scripted to write them."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from envelopes import refused

from headrace.core.errors import ConfigError

CHAT = "/v1/chat/completions"
MESSAGES = [{"role": "user", "content": "Hi"}]
WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a city",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
STOP = {"type": "function", "function": {"name": "stop"}}
TOOLS = [WEATHER, STOP]
CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Bergen"}}\n</tool_call>'
SECOND = '<tool_call>\n{"name": "stop", "arguments": {}}\n</tool_call>'
ID = re.compile(r"chatcmpl-tool-[0-9a-f]{16}")

AUTO = {"api": {"enable_auto_tool_choice": True}, "model": {"tool_call_parser": "hermes"}}


@pytest.fixture
def auto(make_app):
    """An app whose model decides by itself, and writes as Hermes does."""
    return make_app(**AUTO)


def streamed(events: list[dict[str, Any]]) -> tuple[str, list[dict[str, Any]], str]:
    """Content, calls and finish reason, put together as a client does it."""
    content, calls = "", []
    for event in events:
        (choice,) = event["choices"]
        delta = choice["delta"]
        content += delta.get("content") or ""
        for part in delta.get("tool_calls", []):
            if part["index"] == len(calls):
                assert ID.fullmatch(part["id"])
                assert part["type"] == "function"
                calls.append({"name": part["function"]["name"], "arguments": ""})
            else:
                assert part.keys() == {"index", "function"}
                assert part["function"].keys() == {"arguments"}
            calls[part["index"]]["arguments"] += part["function"]["arguments"]
    return content, calls, choice["finish_reason"]


class TestAuto:
    def test_a_call(self, auto):
        auto.says(CALL)
        (choice,) = auto.chat(tools=TOOLS)["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert ID.fullmatch(call.pop("id"))
        assert call == {"type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bergen"}'}}
        assert (choice["message"]["content"], choice["finish_reason"]) == (None, "tool_calls")

    def test_text_before_calls_and_several_of_them(self, auto):
        auto.says(f"Let me see.\n{CALL}\n{SECOND}")
        message = auto.chat(tools=TOOLS, tool_choice="auto")["choices"][0]["message"]
        assert message["content"] == "Let me see."
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather", "stop"]
        assert len({call["id"] for call in message["tool_calls"]}) == 2

    def test_no_call(self, auto):
        auto.says("No need to.")
        (choice,) = auto.chat(tools=TOOLS)["choices"]
        assert "tool_calls" not in choice["message"]
        assert (choice["message"]["content"], choice["finish_reason"]) == ("No need to.", "stop")

    def test_streamed(self, auto):
        auto.says(f"Let me see.\n{CALL}\n{SECOND}")
        events = auto.stream_chat(tools=TOOLS)
        content, calls, reason = streamed(events)
        assert (content, reason) == ("Let me see.", "tool_calls")
        assert calls == [
            {"name": "get_weather", "arguments": '{"city": "Bergen"}'},
            {"name": "stop", "arguments": "{}"},
        ]
        begun = next(event for event in events if "tool_calls" in event["choices"][0]["delta"])
        assert begun["choices"][0]["delta"]["content"] is None
        assert events[-1]["choices"][0]["delta"] == {}
        fragments = [event for event in events if "tool_calls" in event["choices"][0]["delta"]]
        assert len(fragments) > 4, "arguments come as they are written"

    def test_no_text_without_meaning_is_streamed(self, auto):
        auto.says(CALL)
        for event in auto.stream_chat(tools=TOOLS)[1:-1]:
            assert "tool_calls" in event["choices"][0]["delta"]

    def test_only_the_first_call_where_only_one_is_wanted(self, auto):
        auto.says(f"{CALL}\n{SECOND}")
        message = auto.chat(tools=TOOLS, parallel_tool_calls=False)["choices"][0]["message"]
        assert [call["function"]["name"] for call in message["tool_calls"]] == ["get_weather"]
        _, calls, reason = streamed(auto.stream_chat(tools=TOOLS, parallel_tool_calls=False))
        assert ([call["name"] for call in calls], reason) == (["get_weather"], "tool_calls")

    def test_a_broken_call_is_shown(self, auto):
        text = '<tool_call>\n{"name": "get_weather", "arguments": {"city": oops}}\n</tool_call>'
        auto.says(text)
        (choice,) = auto.chat(tools=TOOLS)["choices"]
        assert "tool_calls" not in choice["message"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (text, "stop")
        content, calls, _ = streamed(auto.stream_chat(tools=TOOLS))
        assert calls[0]["arguments"] + content == text.partition('"arguments": ')[2]

    def test_a_call_that_was_complete_when_the_answer_was_cut(self, auto):
        ids = auto.says(CALL, eos=False)
        (choice,) = auto.chat(tools=TOOLS, max_tokens=len(ids))["choices"]
        assert choice["finish_reason"] == "tool_calls"
        events = auto.stream_chat(tools=TOOLS, max_tokens=len(ids))
        assert events[-1]["choices"][0]["finish_reason"] == "length"

    def test_choices_have_their_own_calls(self, auto):
        auto.says(CALL)
        choices = auto.chat(tools=TOOLS, n=2)["choices"]
        assert len({choice["message"]["tool_calls"][0]["id"] for choice in choices}) == 2
        indexes = [
            event["choices"][0]["index"]
            for event in auto.stream_chat(tools=TOOLS, n=2)
            if any("id" in part for part in event["choices"][0]["delta"].get("tool_calls", []))
        ]
        assert sorted(indexes) == [0, 1]

    def test_tokens_and_logprobs_of_calls_are_all_there(self, auto):
        ids = auto.says(CALL)
        options = {"tools": TOOLS, "logprobs": True, "return_token_ids": True}
        (choice,) = auto.chat(**options)["choices"]
        assert choice["token_ids"][:-1] == ids
        pieces = [event["choices"][0] for event in auto.stream_chat(**options)[1:]]
        assert [token for piece in pieces for token in piece["token_ids"]] == choice["token_ids"]
        entries = [entry for piece in pieces for entry in piece["logprobs"]["content"]]
        assert entries == choice["logprobs"]["content"]

    def test_markers_that_are_special_tokens_are_seen(self, auto):
        auto.chat(tools=TOOLS)
        auto.says("<|im_start|>x")
        assert auto.chat(tools=TOOLS)["choices"][0]["message"]["content"] == "<|im_start|>x"
        assert auto.chat()["choices"][0]["message"]["content"] == "x"

    def test_mistral_ids(self, make_app):
        app = make_app(api={"enable_auto_tool_choice": True}, model={"tool_call_parser": "mistral"})
        app.says('[TOOL_CALLS]stop[ARGS]{"a": 1}')
        (call,) = app.chat(tools=TOOLS)["choices"][0]["message"]["tool_calls"]
        assert re.fullmatch("[A-Za-z0-9]{9}", call["id"])


class TestDemanded:
    """The model is constrained; no flag and no parser is needed."""

    ONE = '[{"name": "get_weather", "parameters": {"city": "Bergen"}}]'
    TWO = '[{"name": "get_weather", "parameters": {"city": "Bergen"}}, {"name": "stop", "parameters": {}}]'
    NAMED = {"type": "function", "function": {"name": "get_weather"}}  # noqa: RUF012

    def test_required(self, app):
        app.says(self.TWO)
        (choice,) = app.chat(tools=TOOLS, tool_choice="required")["choices"]
        assert choice["finish_reason"] == "tool_calls"
        assert choice["message"]["content"] == ""
        assert [call["function"] for call in choice["message"]["tool_calls"]] == [
            {"name": "get_weather", "arguments": '{"city": "Bergen"}'},
            {"name": "stop", "arguments": "{}"},
        ]
        assert app.engine.requests[-1].sampling.grammar is not None

    def test_required_streamed(self, app):
        app.says(self.TWO)
        content, calls, reason = streamed(app.stream_chat(tools=TOOLS, tool_choice="required"))
        assert (content, reason) == ("", "tool_calls")
        assert [call["name"] for call in calls] == ["get_weather", "stop"]
        assert json.loads(calls[0]["arguments"]) == {"city": "Bergen"}

    def test_named(self, app):
        app.says(' {"city": "Bergen"}\n')
        (choice,) = app.chat(tools=TOOLS, tool_choice=self.NAMED)["choices"]
        (call,) = choice["message"]["tool_calls"]
        assert call["function"] == {"name": "get_weather", "arguments": '{"city": "Bergen"}'}
        assert (choice["message"]["content"], choice["finish_reason"]) == ("", "stop")
        assert streamed(app.stream_chat(tools=TOOLS, tool_choice=self.NAMED)) == (
            "",
            [{"name": "get_weather", "arguments": '{"city": "Bergen"}'}],
            "stop",
        )

    @pytest.mark.parametrize("choice", ["required", NAMED])
    def test_cut_short(self, app, choice):
        text = self.ONE if choice == "required" else '{"city": "Bergen"}'
        ids = app.says(text, eos=False)
        body = app.chat(tools=TOOLS, tool_choice=choice, max_tokens=len(ids) - 2)
        (answer,) = body["choices"]
        assert answer["finish_reason"] == "length"
        assert answer["message"]["tool_calls"][0]["function"]["arguments"].startswith('{"city": "')
        _, calls, reason = streamed(app.stream_chat(tools=TOOLS, tool_choice=choice, max_tokens=len(ids) - 2))
        assert calls[0]["arguments"] == answer["message"]["tool_calls"][0]["function"]["arguments"]
        assert reason == "length"

    @pytest.mark.parametrize(("text", "complete"), [('[{"name": "get_wea', 0), (ONE[:-1] + ', {"name": "sto', 1)])
    def test_no_json_of_a_call_that_never_began_is_content(self, app, text, complete):
        ids = app.says(text, eos=False)
        options = {"tools": TOOLS, "tool_choice": "required", "max_tokens": len(ids)}
        (answer,) = app.chat(**options)["choices"]
        assert (answer["message"]["content"], answer["finish_reason"]) == ("", "length")
        assert len(answer["message"].get("tool_calls", [])) == complete
        content, calls, reason = streamed(app.stream_chat(**options))
        assert (content, len(calls), reason) == ("", complete, "length")

    def test_an_answer_cut_short_before_it_began_calls_nothing(self, make_app):
        app = make_app(model={"reasoning_parser": "deepseek_r1"})
        ids = app.says("<think>Which city", eos=False)
        options = {"tools": TOOLS, "tool_choice": self.NAMED, "max_tokens": len(ids)}
        (answer,) = app.chat(**options)["choices"]
        assert answer["message"]["reasoning"] == "Which city"
        assert "tool_calls" not in answer["message"]
        assert (answer["message"]["content"], answer["finish_reason"]) == ("", "length")
        assert streamed(app.stream_chat(**options)) == ("", [], "length")

    def test_the_names_of_functions_are_demanded_of_the_model(self, app):
        app.says(self.ONE)
        app.chat(tools=TOOLS, tool_choice="required")
        grammar = app.engine.requests[-1].sampling.grammar
        assert "get_weather" in grammar
        assert "stop" in grammar


class TestAnswerInJson:
    """Tools beside a response format: the answer is either."""

    FORMAT = {  # noqa: RUF012
        "type": "json_schema",
        "json_schema": {"name": "x", "schema": {"type": "object", "properties": {"answer": {"type": "string"}}}},
    }

    @pytest.mark.parametrize("text", ['{"answer": "yes"}', CALL])
    def test_either(self, auto, text):
        auto.says(text)
        (choice,) = auto.chat(tools=TOOLS, response_format=self.FORMAT)["choices"]
        assert bool(choice["message"]["content"]) is (text != CALL)
        assert ("tool_calls" in choice["message"]) is (text == CALL)
        grammar = auto.engine.requests[-1].sampling.grammar
        assert "get_weather" in grammar
        assert "answer" in grammar

    def test_what_is_no_json_leaves_no_room_for_calls(self, auto):
        auto.says("yes")
        auto.chat(tools=TOOLS, structured_outputs={"choice": ["yes", "no"]})
        assert "get_weather" not in auto.engine.requests[-1].sampling.grammar


class TestNone:
    def test_text_is_text(self, auto):
        auto.says(CALL)
        (choice,) = auto.chat(tools=TOOLS, tool_choice="none")["choices"]
        assert (choice["message"]["content"], choice["finish_reason"]) == (CALL, "stop")

    @pytest.mark.parametrize(("hidden", "shown"), [(False, True), (True, False)])
    def test_the_tools_are_in_the_prompt_unless_the_server_hides_them(self, make_app, tool_template, hidden, shown):
        app = make_app(chat_template=tool_template, api={"exclude_tools_when_tool_choice_none": hidden})
        body = app.chat(tools=TOOLS, tool_choice="none", return_prompt_text=True)
        assert ("get_weather" in body["prompt_text"]) is shown


class TestPrompt:
    def test_the_template_gets_the_tools_as_they_were_sent(self, make_app, tool_template):
        app = make_app(chat_template=tool_template, **AUTO)
        odd = {"function": {"strict": None, "name": "f", "x": 1}, "type": "function", "extra": [None]}
        body = app.chat(tools=[odd], return_prompt_text=True)
        assert json.dumps(odd) in body["prompt_text"]

    def test_calls_and_results_of_earlier_turns(self, make_app, tool_template):
        app = make_app(chat_template=tool_template, **AUTO)
        messages = [
            *MESSAGES,
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}},
                    {"id": "2", "type": "function", "function": {"name": "f", "arguments": '{"a": '}},
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "one"}]},
        ]
        prompt = app.ok(CHAT, messages=messages, tools=TOOLS, return_prompt_text=True)["prompt_text"]
        assert '{"name": "f", "arguments": {"a": 1}}' in prompt
        assert '{"name": "f", "arguments": {}}' in prompt, "a call that was cut short"
        assert "<tool_response>\none\n</tool_response>" in prompt

    def test_tokenize_counts_tools(self, make_app, tool_template):
        app = make_app(chat_template=tool_template)
        plain = app.ok("/tokenize", messages=MESSAGES)["count"]
        assert app.ok("/tokenize", messages=MESSAGES, tools=TOOLS)["count"] > plain + 20


@pytest.fixture
def loose(tmp_path):
    """Flags for a format of which nobody knows how it is constrained."""
    plugin = tmp_path / "loose.py"
    plugin.write_text(
        "from headrace.text.tools import TOOL_FORMATS, ToolFormat\n"
        "TOOL_FORMATS = {'loose': ToolFormat(parser=TOOL_FORMATS['hermes'].parser)}\n"
    )
    return {"tool_call_parser": "loose", "tool_parser_plugin": str(plugin)}


class TestRefusals:
    @pytest.mark.parametrize(
        ("change", "param", "words"),
        [
            ({"tools": []}, "tools", "must not be empty"),
            ({"tool_choice": "required"}, "tool_choice", "`tools` must be set"),
            ({"tool_choice": "auto"}, "tool_choice", "`tools` must be set"),
            (
                {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "nope"}}},
                "tool_choice",
                "none of the tools: get_weather, stop",
            ),
            (
                {
                    "tools": TOOLS,
                    "tool_choice": {"type": "function", "function": {"name": "stop"}},
                    "response_format": {"type": "json_object"},
                },
                "tool_choice",
                "not both",
            ),
        ],
    )
    def test_what_makes_no_sense(self, auto, change, param, words):
        error = refused(auto.post(CHAT, {"messages": MESSAGES, **change}))
        assert error["param"] == param
        assert words in error["message"]

    @pytest.mark.parametrize(
        ("change", "param"),
        [
            ({"tool_choice": "maybe"}, "body.tool_choice"),
            ({"tool_choice": {"type": "function"}}, "body.tool_choice"),
            ({"tools": [{"type": "function"}]}, "body.tools.0.function"),
            ({"tools": [{"type": "retrieval", "function": {"name": "f"}}]}, "body.tools.0.type"),
            ({"tools": [{"type": "function", "function": {"name": ""}}]}, "body.tools.0.function.name"),
            ({"tools": "f"}, "body.tools"),
        ],
    )
    def test_what_is_no_tool(self, auto, change, param):
        error = refused(auto.post(CHAT, {"messages": MESSAGES, "tools": TOOLS, **change}))
        assert error["param"] == param

    @pytest.mark.parametrize("choice", [{}, {"tool_choice": "auto"}])
    def test_auto_needs_a_server_that_was_set_up_for_it(self, make_app, choice):
        for app in (make_app(), make_app(model={"tool_call_parser": "hermes"})):
            error = refused(app.post(CHAT, {"messages": MESSAGES, "tools": TOOLS, **choice}))
            assert (
                '"auto" tool choice requires --enable-auto-tool-choice and --tool-call-parser to be set'
                in (error["message"])
            )

    def test_a_schema_that_cannot_be_met(self, app):
        broken = {"type": "function", "function": {"name": "f", "parameters": {"type": "nonsense"}}}
        error = refused(app.post(CHAT, {"messages": MESSAGES, "tools": [broken], "tool_choice": "required"}))
        assert error["param"] == "tools"

    def test_strict_tools_that_cannot_be_held_to_anything(self, make_app, loose):
        app = make_app(api={"enable_auto_tool_choice": True}, model=loose)
        strict = {"type": "function", "function": {"name": "f", "strict": True}}
        error = refused(app.post(CHAT, {"messages": MESSAGES, "tools": [strict]}))
        assert error["param"] == "tools"
        assert "strict" in error["message"]

    def test_flags_that_need_each_other(self, make_app, loose):
        with pytest.raises(ConfigError, match="--enable-auto-tool-choice needs --tool-call-parser"):
            make_app(api={"enable_auto_tool_choice": True})
        with pytest.raises(ConfigError, match="--tool-strict-level needs --tool-call-parser"):
            make_app(model={"tool_strict_level": "function"})
        with pytest.raises(ConfigError, match=r"--tool-strict-level parameter: .*loose cannot be constrained"):
            make_app(model={"tool_strict_level": "parameter", **loose})


class TestStrict:
    STRICT = {**WEATHER, "function": {**WEATHER["function"], "strict": True}}  # noqa: RUF012

    @pytest.mark.parametrize(
        ("level", "tools", "constrained"),
        [
            ("auto", [WEATHER], False),
            ("auto", [STRICT, STOP], True),
            ("function", [WEATHER], True),
            ("parameter", [WEATHER], True),
        ],
    )
    def test_what_the_model_is_held_to(self, make_app, level, tools, constrained):
        app = make_app(
            api={"enable_auto_tool_choice": True}, model={"tool_call_parser": "hermes", "tool_strict_level": level}
        )
        app.says(CALL)
        assert app.chat(tools=tools)["choices"][0]["finish_reason"] == "tool_calls"
        grammar = app.engine.requests[-1].sampling.grammar
        assert (grammar is not None) is constrained
        if level in ("function", "parameter"):
            assert ("city" in grammar) is (level == "parameter")
