"""Compiling constraints beside everything else: once for equal ones, in processes that can die."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
from scripted_client import ScriptedEngine

from headrace.config.structured import DEFAULTS
from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams
from headrace.core.vocabulary import Vocabulary
from headrace.service import constraints as module
from headrace.service.constraints import Constraints
from headrace.service.workers import Workers
from headrace.text import Tokenizer

CHOICE = StructuredOutputsParams(choice=["a", "b"])
PATTERNS = [f"[a-m]*{letter}[n-z]{{3,30}}" for letter in "abcdefghijklmnopqrst"]
ENDLESS = StructuredOutputsParams(json={"type": "string", "allOf": [{"pattern": one} for one in PATTERNS]})
"""What these patterns have in common takes hours to find."""

Use = Callable[[Constraints, "LearningEngine"], Coroutine[Any, Any, None]]


class LearningEngine(ScriptedEngine):
    def __init__(self) -> None:
        super().__init__()
        self.learned: list[Vocabulary] = []

    def learn(self, vocabulary: Vocabulary) -> None:
        self.learned.append(vocabulary)


def using(tokenizer: Tokenizer, use: Use, *, eos_token_ids: tuple[int, ...] = (2,)) -> None:
    async def run() -> None:
        engine, workers = LearningEngine(), Workers("test-text")
        constraints = Constraints(
            engine,
            tokenizer,
            workers,
            vocab_size=tokenizer.vocab_size,
            eos_token_ids=eos_token_ids,
            config=DEFAULTS,
        )
        try:
            await use(constraints, engine)
        finally:
            constraints.close()
            workers.close()

    asyncio.run(run())


def helpers() -> list[int]:
    """Processes of this one that compile constraints."""
    found = []
    for name in filter(str.isdecimal, os.listdir("/proc")):
        try:
            with open(f"/proc/{name}/stat") as stat, open(f"/proc/{name}/cmdline") as command:
                parent = int(stat.read().rpartition(")")[2].split()[1])
                if parent == os.getpid() and "headrace.grammar.helper" in command.read():
                    found.append(int(name))
        except OSError:
            continue
    return found


def test_the_engine_learns_once_and_equal_constraints_are_compiled_once(tokenizer: Tokenizer) -> None:
    async def use(constraints: Constraints, engine: LearningEngine) -> None:
        before = helpers()
        grammars = await asyncio.gather(*(constraints.compile(CHOICE) for _ in range(8)))
        assert len(set(grammars)) == 1
        assert len(engine.learned) == 1
        assert len(set(helpers()) - set(before)) == 1
        assert engine.learned[0].eos_ids == (2,)

    using(tokenizer, use)


def test_what_takes_too_long_is_refused_and_holds_up_nothing(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LONGEST_SECONDS", 3.0)

    async def use(constraints: Constraints, engine: LearningEngine) -> None:
        await constraints.compile(CHOICE)
        doomed = [asyncio.create_task(constraints.compile(ENDLESS)) for _ in range(3)]
        await asyncio.sleep(0)
        assert "c" in await constraints.compile(StructuredOutputsParams(choice=["c"]))
        assert not any(task.done() for task in doomed)
        for task in doomed:
            with pytest.raises(BadRequest, match="structured_outputs: too costly: it takes more than 3 s"):
                await task
        assert "d" in await constraints.compile(StructuredOutputsParams(choice=["d"]))

    using(tokenizer, use)


def test_a_process_that_dies_is_replaced(tokenizer: Tokenizer) -> None:
    async def use(constraints: Constraints, engine: LearningEngine) -> None:
        before = set(helpers())
        await constraints.compile(CHOICE)
        (helper,) = set(helpers()) - before
        os.kill(helper, signal.SIGKILL)
        while helper in helpers():
            await asyncio.sleep(0.01)
        assert "c" in await constraints.compile(StructuredOutputsParams(choice=["c"]))

    using(tokenizer, use)


def test_closing_ends_the_processes_also_under_work(tokenizer: Tokenizer) -> None:
    before = set(helpers())

    async def use(constraints: Constraints, engine: LearningEngine) -> None:
        await constraints.compile(CHOICE)
        asyncio.create_task(constraints.compile(ENDLESS))  # noqa: RUF006  it is meant to be left alone
        await asyncio.sleep(0.1)
        assert set(helpers()) - before

    using(tokenizer, use)
    deadline = time.monotonic() + 10
    while set(helpers()) - before:
        assert time.monotonic() < deadline


def test_a_caller_who_leaves_does_not_spoil_it_for_others(tokenizer: Tokenizer) -> None:
    async def use(constraints: Constraints, engine: LearningEngine) -> None:
        leaving = asyncio.create_task(constraints.compile(CHOICE))
        staying = asyncio.create_task(constraints.compile(CHOICE))
        await asyncio.sleep(0)
        leaving.cancel()
        assert "a" in await staying

    using(tokenizer, use)


def test_a_model_that_never_ends_an_answer_cannot_be_held_to_a_form(tokenizer: Tokenizer) -> None:
    async def use(constraints: Constraints, engine: LearningEngine) -> None:
        for _ in range(2):
            with pytest.raises(BadRequest, match="end-of-sequence"):
                await constraints.compile(CHOICE)
        assert not engine.learned

    using(tokenizer, use, eos_token_ids=())
