"""Which chat template a server takes, and what it takes message content to be."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from headrace.config.sections import ModelConfig
from headrace.core.errors import ConfigError
from headrace.hub import Checkpoint
from headrace.service import Conversation
from headrace.service.conversations import render_conversation
from headrace.service.model_text import load_model_text

PARTS = "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
HELLO = Conversation(messages=[{"role": "user", "content": "Hi"}])


def rendered(checkpoint: Checkpoint, conversation: Conversation = HELLO, **changes: object) -> str:
    text = load_model_text(ModelConfig(model="m", **changes), checkpoint)
    assert text.template is not None
    return render_conversation(text.template, conversation, model_name="m")


def test_the_models_own(smollm2: Checkpoint):
    assert rendered(smollm2).endswith("<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_file(smollm2: Checkpoint, tmp_path: Path):
    (tmp_path / "x.jinja").write_text("from a file\n")
    assert rendered(smollm2, chat_template=str(tmp_path / "x.jinja")) == "from a file"


@pytest.mark.parametrize("text", ["{{ messages[0].content }}!", "two\nlines"])
def test_the_template_itself(smollm2: Checkpoint, text: str):
    assert rendered(smollm2, chat_template=text) in ("Hi!", "two\nlines")


def test_a_break_that_is_spelled_is_none(smollm2: Checkpoint):
    assert rendered(smollm2, chat_template="a\\n{{ 1 }}") == "a\\n1"


def test_one_by_name(smollm2: Checkpoint):
    assert rendered(smollm2, chat_template="chatml") == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_the_built_in_one_for_tools(smollm2: Checkpoint):
    calls = [{"function": {"name": "f", "arguments": "{}"}}, {"function": {"name": "g", "arguments": '{"a": 1}'}}]
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "content": "Well.", "tool_calls": calls},
        {"role": "tool", "content": "one"},
        {"role": "tool", "content": "two"},
        {"role": "assistant", "tool_calls": calls[:1]},
    ]
    tools = [{"type": "function", "function": {"name": "f"}}]
    prompt = rendered(smollm2, Conversation(messages=messages, tools=tools), chat_template="hermes")
    assert prompt.startswith("<|im_start|>system\nBe brief.\n\nYou can call functions")
    assert '<tools>\n{"type": "function", "function": {"name": "f"}}\n</tools>' in prompt
    first = '<tool_call>\n{"name": "f", "arguments": {}}\n</tool_call>'
    second = '<tool_call>\n{"name": "g", "arguments": {"a": 1}}\n</tool_call>'
    assert f"<|im_start|>assistant\nWell.\n{first}\n{second}<|im_end|>\n" in prompt
    assert (
        "<|im_start|>user\n<tool_response>\none\n</tool_response>\n<tool_response>\ntwo\n</tool_response><|im_end|>\n"
    ) in prompt
    assert prompt.endswith(f"<|im_start|>assistant\n{first}<|im_end|>\n<|im_start|>assistant\n")


def test_a_path_that_is_not_there(smollm2: Checkpoint):
    with pytest.raises(ConfigError, match=r"--chat-template: cannot read .*looks like a path.*chatml, hermes"):
        rendered(smollm2, chat_template="templates/missing.jinja")


@pytest.mark.parametrize("changes", [{"chat_template": PARTS}, {}])
def test_the_content_format_is_detected_and_logged(
    smollm2: Checkpoint, caplog: pytest.LogCaptureFixture, changes: dict[str, str]
):
    with caplog.at_level(logging.INFO, logger="headrace"):
        rendered(smollm2, **changes)
    found = "openai" if changes else "string"
    assert f"Detected the chat template content format to be '{found}'" in caplog.text


def test_the_content_format_can_be_chosen(smollm2: Checkpoint):
    template = "{{ messages[0].content is string }}"
    assert rendered(smollm2, chat_template=template) == "True"
    assert rendered(smollm2, chat_template=template, chat_template_content_format="openai") == "False"


def test_the_template_for_tools_has_a_content_format_of_its_own(smollm2: Checkpoint):
    named = {"default": "{{ messages[0].content }}", "tool_use": PARTS}
    checkpoint = replace(smollm2, chat_template=named)
    assert rendered(checkpoint) == "Hi"
    assert rendered(checkpoint, replace(HELLO, tools=[{"type": "function"}])) == "[Hi]"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"tool_call_parser": "nope"}, "--tool-call-parser: there is no 'nope'"),
        ({"reasoning_parser": "nope"}, "--reasoning-parser: there is no 'nope'"),
    ],
)
def test_parsers_that_nobody_knows(smollm2: Checkpoint, changes: dict[str, str], reason: str):
    with pytest.raises(ConfigError, match=reason):
        rendered(smollm2, **changes)
