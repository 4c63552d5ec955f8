"""Prompts without end: random ones, and random ones that begin alike. Those of a file are in `files.py`."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from headrace.bench.errors import BenchError
from headrace.bench.words import Words

Message = Mapping[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Prompt:
    """`content`: a text, token ids, or the messages of a conversation. `tokens`: its length, None if nobody knows.

    `output_tokens`: how long the answer is to be.
    """

    content: str | list[int] | tuple[Message, ...]
    tokens: int | None
    output_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Tokens of random prompts and of the answers to them.

    Each length is drawn evenly from `mean` * (1 - `spread`) to `mean` * (1 + `spread`).
    """

    prompt_tokens: int
    output_tokens: int
    spread: float = 0.0

    def __post_init__(self) -> None:
        if self.prompt_tokens < 1 or self.output_tokens < 1:
            raise BenchError("A prompt and an output need 1 token at least.")
        if not 0 <= self.spread < 1:
            raise BenchError(f"The spread of lengths must be at least 0 and below 1, got {self.spread:g}.")

    def draw(self, mean: int, random_source: random.Random) -> int:
        shortest, longest = max(1, math.floor(mean * (1 - self.spread))), math.ceil(mean * (1 + self.spread))
        return random_source.randint(shortest, longest)


def random_prompts(words: Words, lengths: Lengths, *, as_ids: bool, seed: int) -> Iterator[Prompt]:
    """Prompts that have nothing in common. The same arguments give the same prompts."""
    return shared_prefix_prompts(words, lengths, prefixes=1, prefix_tokens=0, as_ids=as_ids, seed=seed)


def shared_prefix_prompts(
    words: Words, lengths: Lengths, *, prefixes: int, prefix_tokens: int, as_ids: bool, seed: int
) -> Iterator[Prompt]:
    """Prompts that begin with one of `prefixes` prefixes, each in turn, as conversations with a system prompt do.

    A prompt has `prefix_tokens` and then the tokens of `lengths` of its own.
    """
    if prefixes < 1 or prefix_tokens < 0:
        raise BenchError("There must be 1 prefix at least, of 0 tokens at least.")
    if as_ids and not words.ids:
        raise BenchError("Prompts of token ids need a tokenizer: of the server (/tokenize), or a local one.")
    random_source = random.Random(f"{seed} prompts")
    # The special tokens around a text count as tokens of the prompt.
    special_tokens = 0 if as_ids else words.special_tokens
    draw = words.draw_ids if as_ids else words.draw_text
    begun = [draw(prefix_tokens, random_source) for _ in range(prefixes)]
    number = 0
    while True:
        own = lengths.draw(lengths.prompt_tokens, random_source)
        drawn = draw(max(own - special_tokens, 1), random_source)
        prefix = begun[number % prefixes]
        yield Prompt(
            content=prefix + drawn,  # type: ignore[operator]  # both are texts, or both are ids
            tokens=prefix_tokens + own if words.ids else None,
            output_tokens=lengths.draw(lengths.output_tokens, random_source),
        )
        number += 1
