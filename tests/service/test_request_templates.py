"""Chat templates that come with a conversation: rendered in a process of their own, whatever they do."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from typing import Any

import pytest
from scripted_client import ScriptedEngine, run

from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest
from headrace.service import Conversation, Generator

MakeGenerator = Callable[..., Generator]

HELLO = [{"role": "user", "content": "Hi"}]
ENDLESS = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"
HUNGRY = (
    "{% set ns = namespace(x=[]) %}{% for i in range(99999) %}{% set ns.x = ns.x + [('a' * 9999999) + i|string] %}"
    "{% endfor %}"
)


@pytest.fixture
def generator(make_generator: MakeGenerator) -> Callable[..., Generator]:
    """Of a model without a template, so that every prompt comes from one that was sent."""

    def make(timeout: float = 20.0) -> Generator:
        limits = LimitsConfig(chat_template_render_timeout=timeout)
        return make_generator(ScriptedEngine(), template=None, limits=limits)

    return make


def conversation(template: str, **options: Any) -> Conversation:
    return Conversation(messages=HELLO, chat_template=template, **options)


def rendering(generator: Generator, *conversations: Conversation) -> list[str | BaseException]:
    """What comes of each, one after the other."""

    async def work() -> list[str | BaseException]:
        outcomes = []
        try:
            for each in conversations:
                outcomes += await asyncio.gather(generator.render(each), return_exceptions=True)
        finally:
            generator.close()
        return outcomes

    return run(work())


def test_it_takes_the_place_of_the_models_own(generator: Callable[..., Generator]) -> None:
    template = "{{ eos_token }}{{ mood }}{{ tools[0].name }}{{ documents[0].t }}{{ messages[0].content }}é😀"
    options = {"chat_template_kwargs": {"mood": "ok"}, "tools": [{"name": "f"}], "documents": [{"t": "d"}]}
    (prompt,) = rendering(generator(), conversation(template, **options))
    assert prompt == "<|im_end|>okfdHié😀"


def test_content_comes_as_the_template_wants_it(generator: Callable[..., Generator]) -> None:
    parts = "{% for m in messages %}{% for p in m.content %}[{{ p.text }}]{% endfor %}{% endfor %}"
    assert rendering(generator(), conversation(parts)) == ["[Hi]"]


@pytest.mark.parametrize(
    ("template", "reason", "parameter"),
    [
        ("{{ raise_exception('No.') }}", "^No.$", "messages"),
        ("{% for %}", "has a syntax error at line 1", "chat_template"),
        ("{{ 1 / 0 }}", "failed on these messages", "messages"),
        ("{{ ''.__class__.__mro__ }}", "failed on these messages", "messages"),
        ("{% set x = cycler.__init__.__globals__.os.environ %}{{ x }}", "failed on these messages", "messages"),
        (HUNGRY, "MemoryError|memory", None),
    ],
)
def test_a_template_that_fails_is_refused_and_the_next_one_is_not(
    generator: Callable[..., Generator], template: str, reason: str, parameter: str | None
) -> None:
    refusal, prompt = rendering(generator(), conversation(template), conversation("fine"))
    assert isinstance(refusal, BadRequest)
    with pytest.raises(BadRequest, match=reason):
        raise refusal
    assert parameter is None or refusal.parameter == parameter
    assert prompt == "fine"


def test_one_that_does_not_end_is_killed_and_holds_up_nobody(generator: Callable[..., Generator]) -> None:
    tested = generator(timeout=5)

    async def work() -> tuple[BaseException | str, str, str]:
        endless = asyncio.create_task(tested.render(conversation(ENDLESS)))
        while not helpers("R"):
            await asyncio.sleep(0.01)
        beside = await tested.render(conversation("beside"))
        assert not endless.done()
        (outcome,) = await asyncio.gather(endless, return_exceptions=True)
        after = await tested.render(conversation("after"))
        tested.close()
        return outcome, beside, after

    outcome, beside, after = run(work())
    assert isinstance(outcome, BadRequest)
    assert outcome.message == "The chat template did not finish within 5 s."
    assert outcome.parameter == "chat_template"
    assert (beside, after) == ("beside", "after")


def test_who_leaves_leaves_no_process_at_work(generator: Callable[..., Generator]) -> None:
    tested = generator()

    async def work() -> None:
        await tested.render(conversation("up"))
        endless = asyncio.create_task(tested.render(conversation(ENDLESS)))
        while not (busy := helpers("R")):
            await asyncio.sleep(0.01)
        endless.cancel()
        await asyncio.gather(endless, return_exceptions=True)
        assert not busy & helpers("RSD")
        tested.close()

    run(work())


def helpers(states: str) -> set[str]:
    """Helper processes of this one that are in one of these states, as /proc has them."""
    found = set()
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{pid}/stat") as file:
                state, parent = file.read().rpartition(")")[2].split()[:2]
            with open(f"/proc/{pid}/cmdline") as file:
                command = file.read()
        except OSError:
            continue
        if int(parent) == os.getpid() and state in states and "template_helper" in command:
            found.add(pid)
    return found
