"""Prompts of well-known chat templates are those that transformers renders."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from typing import Any

import public_templates
import pytest
from tokenizers import Tokenizer as Backend
from tokenizers import models
from transformers import PreTrainedTokenizerFast

from headrace.service import Conversation
from headrace.service.conversations import render_conversation
from headrace.text import ChatTemplate

SPECIAL = {"bos_token": "<s>", "eos_token": "</s>"}

TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "wetter",
            "description": "Das Wetter für 'heute' <b>&</b>",
            "parameters": {"type": "object", "properties": {"ort": {"type": "string"}}, "required": ["ort"]},
        },
    }
]
DOCUMENTS = [{"title": "Straße", "text": "Über <x> & 'y'"}, {"title": "B", "text": "zwei"}]

HELLO = [{"role": "user", "content": "Hello"}]
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Hello <b>&amp;</b> 'you'"},
    {"role": "assistant", "content": "Hi!\nHow are you? 漢字"},
    {"role": "user", "content": "well"},
]
CALLED = [
    *HELLO,
    {
        "role": "assistant",
        "content": "",
        "tool_calls": [
            {"id": "abc123DEF", "type": "function", "function": {"name": "wetter", "arguments": {"ort": "Köln"}}}
        ],
    },
    {"role": "tool", "tool_call_id": "abc123DEF", "name": "wetter", "content": "3 Grad"},
]
THOUGHT = [*HELLO, {"role": "assistant", "content": "Hi", "reasoning_content": "hm"}, {"role": "user", "content": "?"}]


@pytest.fixture(scope="module")
def reference() -> PreTrainedTokenizerFast:
    """Any tokenizer of transformers: only its `apply_chat_template` is used."""
    return PreTrainedTokenizerFast(tokenizer_object=Backend(models.BPE()), **SPECIAL)


def as_sent(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """As clients send them: arguments as text."""
    sent = deepcopy(messages)
    for message in sent:
        for call in message.get("tool_calls", []):
            call["function"]["arguments"] = '{"ort": "Köln"}'
    return sent


Check = Callable[..., str]


@pytest.fixture
def check(reference: PreTrainedTokenizerFast) -> Check:
    """Render a conversation both ways; returns the prompt that came of either."""

    def compare(name: str, messages: list[dict[str, Any]], *, kwargs: dict[str, Any] | None = None, **options: Any):
        source, variables = public_templates.ALL[name], kwargs or {}
        chosen = source if isinstance(source, str) else source["tool_use" if options.get("tools") else "default"]
        options = {"add_generation_prompt": True, **options}
        expected = reference.apply_chat_template(messages, chat_template=chosen, tokenize=False, **options, **variables)
        conversation = Conversation(messages=as_sent(messages), chat_template_kwargs=variables, **options)
        assert render_conversation(ChatTemplate(source, SPECIAL), conversation, model_name="m") == expected
        return expected

    return compare


@pytest.mark.parametrize("name", public_templates.ALL)
def test_turns(check: Check, name: str):
    for messages in (HELLO, TURNS, THOUGHT):
        check(name, messages)
        check(name, messages, add_generation_prompt=False)
    check(name, HELLO, kwargs={"enable_thinking": False, "date_string": "1 May 2025", "thinking": True})


@pytest.mark.parametrize("name", public_templates.ALL)
def test_prefill(check: Check, name: str):
    prompt = check(name, TURNS[:3], add_generation_prompt=False, continue_final_message=True)
    assert prompt.endswith("漢字")


@pytest.mark.parametrize("name", sorted(public_templates.WITH_TOOLS))
def test_tools(check: Check, name: str):
    assert "wetter" in check(name, HELLO, tools=TOOLS)


@pytest.mark.parametrize("name", sorted(public_templates.WITH_CALLS))
def test_calls_and_their_results(check: Check, name: str):
    tools = TOOLS if name in public_templates.WITH_TOOLS else None
    assert "Köln" in check(name, CALLED, tools=tools)


@pytest.mark.parametrize("name", sorted(public_templates.WITH_DOCUMENTS))
def test_documents(check: Check, name: str):
    assert "Über" in check(name, HELLO, documents=DOCUMENTS)


@pytest.mark.parametrize("name", public_templates.ALL)
def test_content_format(name: str):
    parts = name in public_templates.PARTS
    assert ChatTemplate(public_templates.ALL[name], SPECIAL).content_format() == ("openai" if parts else "string")
