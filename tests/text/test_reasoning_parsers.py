"""Reasoning parsers: thoughts and answer apart, in any split, and no marker in either."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.core.errors import ConfigError
from headrace.text.reasoning import (
    REASONING_FORMATS,
    ReasoningFormat,
    ReasoningParser,
    reasoning_format,
    thinking_at_end,
)

R1 = REASONING_FORMATS["deepseek_r1"]
GRANITE = REASONING_FORMATS["granite"]
MISTRAL = REASONING_FORMATS["mistral"]


def split(form: ReasoningFormat, pieces: Iterable[str], **options) -> tuple[str, str]:
    parser = ReasoningParser(form, **options)
    parts = [parser.push(piece) for piece in pieces]
    parts.append(parser.finish())
    return "".join(part.reasoning for part in parts), "".join(part.content for part in parts)


@pytest.mark.parametrize(
    ("form", "text", "reasoning", "content"),
    [
        (R1, "<think>\nhm, 1 < 2\n</think>\n\nYes.\n", "hm, 1 < 2", "Yes.\n"),
        (R1, "hm</think>Yes.", "hm", "Yes."),
        (R1, "no end in sight ", "no end in sight", ""),
        (R1, "<think>a</think></think> b </think>", "a", "b </think>"),
        (R1, "", "", ""),
        (MISTRAL, "[THINK]hm[/THINK]Yes [x]", "hm", "Yes [x]"),
        (MISTRAL, " Yes, at once. ", "", " Yes, at once. "),
        (GRANITE, "Here is my thought process: hm\n\nHere is my response: Yes.", "hm", "Yes."),
        (GRANITE, "Here's my thought process:hm Here's my response:Yes.", "hm", "Yes."),
        (GRANITE, "Here is my answer.", "", "Here is my answer."),
    ],
)
def test_what_was_thought_and_what_was_said(form: ReasoningFormat, text: str, reasoning: str, content: str):
    assert split(form, [text]) == split(form, text) == (reasoning, content)


@settings(max_examples=200, deadline=None)
@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "<", "/", "think>", "\n", " ", "a", "<tool>", "b c"])),
    interrupts=st.sampled_from([(), ("<tool>",)]),
    opened=st.booleans(),
)
def test_any_split_gives_the_same(pieces: list[str], interrupts: tuple[str, ...], opened: bool):
    options = {"opened": opened, "interrupts": interrupts}
    whole = split(R1, ["".join(pieces)], **options)
    assert split(R1, pieces, **options) == split(R1, "".join(pieces), **options) == whole


def test_the_beginning_of_a_call_ends_the_thoughts_and_stays():
    assert split(R1, "hm\n<tool_call>{}", interrupts=["<tool_call>"]) == ("hm", "<tool_call>{}")


def test_whether_it_thinks_now():
    parser = ReasoningParser(R1)
    parser.push("h")
    assert parser.thinking
    parser.push("m</thi")
    assert parser.thinking
    parser.push("nk>")
    assert not parser.thinking


@pytest.mark.parametrize(
    ("name", "variables", "on"),
    [
        ("qwen3", {}, True),
        ("qwen3", {"enable_thinking": False}, False),
        ("qwen3", {"enable_thinking": None}, True),
        ("deepseek_r1", {"enable_thinking": False}, True),
        ("deepseek_v3", {}, False),
        ("deepseek_v3", {"thinking": True}, True),
        ("deepseek_v3", {"enable_thinking": True}, True),
    ],
)
def test_switches_of_the_template(name: str, variables: dict, on: bool):
    assert REASONING_FORMATS[name].is_on(variables) is on


@pytest.mark.parametrize(
    ("prompt", "continued", "thinking"),
    [
        ("<|assistant|>\n", "", None),
        ("<|assistant|>\n<think>\n", "", True),
        ("<|assistant|>\n<think>\n\n</think>\n\n", "", False),
        ("<think>a</think>b<|user|>c<|assistant|>", "", None),
        ("<|assistant|><think>So", "<think>So", True),
        ("<|assistant|><think>So</think>Well", "<think>So</think>Well", False),
        ("<|assistant|>Well", "Well", False),
    ],
)
def test_what_the_prompt_says(prompt: str, continued: str, thinking: bool | None):
    assert thinking_at_end(R1, prompt, continued=continued) is thinking


def test_an_unknown_name_is_answered_with_those_like_it():
    with pytest.raises(ConfigError, match=r"--reasoning-parser: there is no 'qwen'\. Did you mean qwen3"):
        reasoning_format("qwen")
    with pytest.raises(ConfigError, match=r"Known are: deepseek_r1, .*, step3\."):
        reasoning_format("zzzzzz")
