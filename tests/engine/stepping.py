"""Driving an engine step by step."""

from __future__ import annotations

from collections.abc import Iterable

from headrace.core.request import Request, SequenceOutput
from headrace.core.sampling import TokenSampling
from headrace.engine import Engine

PROMPTS = [
    "The capital of France is",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a small village by the sea,",
    "The three laws of thermodynamics state that",
    "SELECT name, age FROM users WHERE",
    "Water boils at",
    "Ein kleiner Hund lief durch den Wald und",
    "Le chat est assis sur",
    "1, 1, 2, 3, 5, 8, 13,",
    "Q: What is the largest planet?\nA:",
    "import numpy as np\n\ndef softmax(x):\n",
    "Dear Sir or Madam,\n\nI am writing to",
    "The quick brown fox jumps over the lazy dog. " * 8,
    "<html>\n<head>\n<title>",
    "In 1969, humans first",
    "To make a loaf of bread you need",
    "🙂 The emoji above means",
    "日本の首都は",
    "Hamlet: To be, or not to be,",
    "She opened the letter slowly, and read: “",
]

Outputs = dict[tuple[str, int], list[SequenceOutput]]


def greedy(max_tokens: int = 64) -> TokenSampling:
    return TokenSampling(temperature=0.0, seed=0, max_tokens=max_tokens, ignore_eos=True)


def tokens_of(outputs: Iterable[SequenceOutput]) -> list[int]:
    return [token for output in outputs for token in output.token_ids]


def run_all(engine: Engine, requests: list[Request], *, steps_between: int = 0) -> Outputs:
    """Run the requests to their ends; each is added `steps_between` steps after the one before."""
    waiting = list(requests)
    outputs: Outputs = {}
    while waiting or engine.has_work:
        for request in [waiting.pop(0)] if steps_between and waiting else waiting:
            engine.add(request)
        if not steps_between:
            waiting = []
        for _ in range(max(steps_between, 1)):
            step = engine.step()
            for output in step.sequences if step else []:
                outputs.setdefault((output.request_id, output.choice), []).append(output)
    return outputs
