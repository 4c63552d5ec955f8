"""Greedy tokens of the real models are those of transformers on the same file, however they are scheduled.

Given our tokens as input, transformers' best next token at every position must be our next token: then, by
induction, decoding greedily from the prompt gives the same sequence. Where transformers sees a tie (our token's logit
within 1e-3 of its best), either token is right; the tie is printed.

The native kernels are meant where they are built; a few prompts go through the reference kernels too.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from stepping import PROMPTS, greedy, run_all, tokens_of

from headrace.core.request import Request
from headrace.engine import Engine
from headrace.hub import open_checkpoint
from headrace.text import Tokenizer

TIE = 1e-3


@pytest.fixture(scope="module", params=["smollm2", "gemma3"])
def model_name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model_path(request: pytest.FixtureRequest, model_name: str) -> Path:
    return request.getfixturevalue(f"{model_name}_path")


@pytest.fixture(scope="module")
def reference(request: pytest.FixtureRequest, model_name: str) -> Any:
    """transformers' model of the same file."""
    return request.getfixturevalue(f"{model_name}_reference")


@pytest.fixture(scope="module")
def prompts(model_name: str, model_path: Path) -> list[list[int]]:
    """Fewer for the larger model: a vocabulary of 262,144 tokens takes its time."""
    tokenizer = Tokenizer.load(open_checkpoint(str(model_path)))
    return [tokenizer.encode(text) for text in (PROMPTS if model_name == "smollm2" else PROMPTS[::2][:8])]


@pytest.fixture(scope="module")
def engine(model_path: Path, make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(model_path, max_model_len=1024)


@pytest.fixture(scope="module")
def alone(engine: Engine, prompts: list[list[int]]) -> list[list[int]]:
    """64 greedy tokens after each prompt, one prompt at a time."""
    found = []
    for index, prompt in enumerate(prompts):
        outputs = run_all(engine, [Request(request_id=f"alone-{index}", prompt_ids=prompt, sampling=greedy())])
        found.append(tokens_of(outputs[f"alone-{index}", 0]))
    return found


def assert_same_or_tie(reference: Any, prompt: list[int], ours: list[int], other: list[int] | None = None) -> None:
    """`ours` is what transformers would choose; `other`, where given, differs from it first at a tie."""
    if other is not None:
        differing = next((i for i, (a, b) in enumerate(zip(ours, other, strict=True)) if a != b), None)
        if differing is None:
            return
        ours = other[: differing + 1]
    with torch.inference_mode():
        logits = reference(torch.tensor([prompt + ours])).logits[0, len(prompt) - 1 : -1]
    chosen = logits[torch.arange(len(ours)), torch.tensor(ours)]
    for position, gap in enumerate((logits.amax(-1) - chosen).tolist()):
        assert gap < TIE, f"output {position}: our token's logit is {gap} below transformers' best"
        if gap > 0:
            print(f"tie within {gap:.1e} at output {position} of the prompt of {len(prompt)} tokens")
            return


def test_alone_on_the_reference_kernels(
    model_path: Path, make_engine: Callable[..., Engine], reference: Any, prompts: list[list[int]]
) -> None:
    engine = make_engine(model_path, max_model_len=512, kernels="reference")
    outputs = run_all(
        engine, [Request(request_id=str(at), prompt_ids=prompts[at], sampling=greedy(16)) for at in (0, 3, 7)]
    )
    for at in (0, 3, 7):
        assert_same_or_tie(reference, prompts[at], tokens_of(outputs[str(at), 0]))


def test_alone(reference: Any, prompts: list[list[int]], alone: list[list[int]]) -> None:
    for prompt, ours in zip(prompts, alone, strict=True):
        assert len(ours) == 64
        assert_same_or_tie(reference, prompt, ours)


@pytest.mark.parametrize("steps_between", [0, 3], ids=["one-batch", "interleaved"])
def test_together(
    engine: Engine,
    reference: Any,
    prompts: list[list[int]],
    alone: list[list[int]],
    steps_between: int,
) -> None:
    requests = [
        Request(
            request_id=f"{steps_between}-{index}", prompt_ids=prompt, sampling=greedy(), cache_salt=str(steps_between)
        )
        for index, prompt in enumerate(prompts)
    ]
    outputs = run_all(engine, requests, steps_between=steps_between)
    for index, prompt in enumerate(prompts):
        together = tokens_of(outputs[f"{steps_between}-{index}", 0])
        if engine.info.kernels == "reference":
            assert_same_or_tie(reference, prompt, alone[index], together)
        else:
            assert together == alone[index]
