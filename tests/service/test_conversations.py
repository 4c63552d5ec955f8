"""Messages of every shape that clients send, through real templates."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from scripted_client import ScriptedEngine, run

from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest, Unsupported
from headrace.service import Conversation, Generator
from headrace.text import ChatTemplate

MakeGenerator = Callable[..., Generator]

LINES = "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}"
PARTS = (
    "{% for message in messages %}{{ message.role }}:{% for part in message['content'] %}"
    " [{{ part.type }} {{ part.text }}]{% endfor %};{% endfor %}"
)
DEVELOPER = (
    "{% for message in messages %}{% if message.role == 'developer' %}DEV{% else %}{{ message.role }}{% endif %}: "
    "{{ message.content }}\n{% endfor %}"
)
CALLS = (
    "{% for message in messages %}{{ message.role }}: {{ message.content }}{% for call in message.tool_calls %}"
    "{% for key, value in call.function.arguments.items() %} {{ key }}={{ value }}{% endfor %}{% endfor %};{% endfor %}"
)

Render = Callable[..., str]


@pytest.fixture
def render(make_generator: MakeGenerator) -> Render:
    def make(messages: list[Any], *, template: str | ChatTemplate | None = LINES, **options: Any) -> str:
        if isinstance(template, str):
            template = ChatTemplate(template, {})
        limits = LimitsConfig(chat_template_render_timeout=options.pop("timeout", 30.0))

        async def work() -> str:
            generator = make_generator(ScriptedEngine(), template=template, limits=limits)
            return await generator.render(Conversation(messages=messages, **options))

        return run(work())

    return make


def refusal(render: Render, messages: list[Any], **options: Any) -> BadRequest:
    with pytest.raises(BadRequest) as caught:
        render(messages, **options)
    return caught.value


def user(content: Any) -> dict[str, Any]:
    return {"role": "user", "content": content}


def test_the_models_own_template(render: Render, template: ChatTemplate) -> None:
    prompt = render([{"role": "system", "content": "Be brief."}, user("Hi")], template=template)
    assert prompt == "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_continue_final_message(render: Render, template: ChatTemplate) -> None:
    messages = [{"role": "system", "content": "s"}, user("Hi"), {"role": "assistant", "content": "Well"}]
    prompt = render(messages, template=template, add_generation_prompt=False, continue_final_message=True)
    assert prompt.endswith("<|im_start|>assistant\nWell")
    error = refusal(render, messages, template=template, continue_final_message=True)
    assert error.parameter == "continue_final_message"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("plain", "plain"),
        (None, ""),
        ([], ""),
        (["bare", {"type": "text", "text": "typed"}], "bare\ntyped"),
        ([{"type": "input_text", "text": "a"}, {"type": "output_text", "text": "b"}], "a\nb"),
        ([{"type": "refusal", "refusal": "no"}, {"type": "thinking", "thinking": "hm"}], "no\nhm"),
        ([{"type": "text", "text": None}, {"type": "text", "text": "rest"}], "rest"),
        ([{"text": "guessed"}], "guessed"),
    ],
)
def test_text_content(render: Render, content: Any, text: str) -> None:
    assert render([user(content)]) == f"user: {text}\n"


def test_template_that_wants_parts(render: Render) -> None:
    messages = [user("plain"), user([{"type": "input_text", "text": "part"}, "bare"])]
    assert render(messages, template=PARTS) == "user: [text plain];user: [text part] [text bare];"


def test_unknown_fields_of_a_part_are_kept(render: Render) -> None:
    template = (
        "{% for message in messages %}{% for part in message['content'] %}{{ part.mark }}{% endfor %}{% endfor %}"
    )
    assert render([user([{"type": "text", "text": "x", "mark": "kept"}])], template=template) == "kept"


@pytest.mark.parametrize(
    ("part", "named"),
    [
        ({"type": "image_url", "image_url": {"url": "data:,"}}, "image_url"),
        ({"type": "input_image", "image_url": "data:,"}, "input_image"),
        ({"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}, "input_audio"),
        ({"image_url": "https://example.org/a.png"}, "image_url"),
    ],
)
def test_media_are_refused_by_name(render: Render, part: dict[str, Any], named: str) -> None:
    error = refusal(render, [user("a"), user(["text", part])])
    assert "smol is not a multimodal model" in error.message
    assert "messages[1].content[1]" in error.message
    assert named in error.message


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (user([{"type": "hologram"}]), "unknown type 'hologram'. Supported are: text"),
        (user([{"shape": "round"}]), "has no type"),
        (user([5]), r"content\[0\] must be"),
        (user(5), "content must be a text or a list"),
        (user([{"type": "text", "text": 5}]), "text must be a text"),
        ({"content": "x"}, "role"),
        ({"role": 5, "content": "x"}, "role"),
        ("hello", "must be an object"),
        ({"role": "assistant", "tool_calls": "f()"}, "tool_calls must be a list"),
        ({"role": "assistant", "tool_calls": [{}]}, "with a function"),
        ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[1]"}}]}, "JSON object"),
    ],
)
def test_messages_that_make_no_sense(render: Render, message: Any, reason: str) -> None:
    with pytest.raises(BadRequest, match=reason) as caught:
        render([message])
    assert caught.value.parameter == "messages"
    assert "messages[0]" in caught.value.message


def test_prompt_embeds_are_not_supported(render: Render) -> None:
    assert isinstance(refusal(render, [user([{"type": "prompt_embeds", "data": ""}])]), Unsupported)


def test_no_messages(render: Render) -> None:
    assert refusal(render, []).parameter == "messages"


def test_developer_joins_the_system_message(render: Render) -> None:
    messages = [
        {"role": "system", "content": "S"},
        user("u"),
        {"role": "developer", "content": [{"type": "text", "text": "D"}]},
    ]
    assert render(messages) == "system: S\n\nD\nuser: u\n"
    assert render(messages, template=PARTS) == "system: [text S] [text D];user: [text u];"


def test_developer_stays_where_the_template_knows_it(render: Render) -> None:
    messages = [{"role": "developer", "content": "D"}, user("u")]
    assert render(messages, template=DEVELOPER) == "DEV: D\nuser: u\n"


def test_tool_call_arguments_become_objects(render: Render) -> None:
    calls = [{"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"city": "Bergen"}'}}]
    nothing = [{"id": "d", "type": "function", "function": {"name": "g", "arguments": ""}}]
    messages = [
        {"role": "assistant", "content": None, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c", "content": [{"type": "text", "text": "rain"}, "wind"]},
        {"role": "assistant", "content": "ok", "tool_calls": nothing, "refusal": None},
        {"role": "assistant", "content": "done", "tool_calls": None},
    ]
    assert render(messages, template=CALLS) == "assistant:  city=Bergen;tool: rain\nwind;assistant: ok;assistant: done;"
    assert calls[0]["function"]["arguments"] == '{"city": "Bergen"}', "the caller's messages were changed"


def test_arguments_that_were_cut_short_are_none(render: Render) -> None:
    calls = [{"function": {"name": "f", "arguments": '{"city": "Ber'}}]
    assert render([{"role": "assistant", "tool_calls": calls}], template=CALLS) == "assistant: ;"


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content"])
def test_reasoning_stands_under_both_names(render: Render, name: str) -> None:
    template = "{% for m in messages %}{{ m.reasoning }}/{{ m.reasoning_content }} {% endfor %}"
    assert render([{"role": "assistant", "content": "x", name: "hm"}, user("y")], template=template) == "hm/hm / "


def test_tool_results_are_text_for_templates_that_want_parts(render: Render) -> None:
    template = "{% for message in messages %}{% if message.role == 'tool' %}{{ message.content }}{% else %}" + (
        "{% for part in message['content'] %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}"
    )
    messages = [user("q "), {"role": "tool", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]
    assert render(messages, template=template) == "q a\nb"


def test_template_variables(render: Render) -> None:
    template = "{{ mood }} {{ documents[0].title }} {{ tools[0].name }} {{ add_generation_prompt }}"
    prompt = render(
        [user("x")],
        template=template,
        chat_template_kwargs={"mood": "glad", "unused": 1},
        documents=[{"title": "Atlas"}],
        tools=[{"name": "f"}],
    )
    assert prompt == "glad Atlas f True"


def test_template_in_the_variables_is_refused(render: Render) -> None:
    error = refusal(render, [user("x")], chat_template_kwargs={"chat_template": "{{ 1 }}"})
    assert error.parameter == "chat_template_kwargs"


def test_no_template(render: Render) -> None:
    message = refusal(render, [user("x")], template=None).message
    assert "default chat template is no longer allowed" in message
    assert "must be provided" in message


def test_the_templates_own_refusal(render: Render) -> None:
    error = refusal(render, [user("x")], template="{{ raise_exception('Roles must alternate') }}")
    assert "Roles must alternate" in error.message


def test_template_that_takes_too_long(render: Render) -> None:
    slow = "{% for a in range(99999) %}{% for b in range(60) %}{% endfor %}{% endfor %}"
    start = time.monotonic()
    error = refusal(render, [user("x")], template=slow, timeout=0.05)
    assert "did not finish within 0.05 s" in error.message
    assert time.monotonic() - start < 1
