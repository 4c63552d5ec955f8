"""Beam search by its definition: every continuation spelled out, for whatever says what follows a context."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Logprobs = Callable[[list[int]], list[float]]
"""The log-probability of every token after a context."""


@dataclass(frozen=True)
class Found:
    """One answer. `token_ids` are the output, with the end-of-sequence token that ended it."""

    token_ids: list[int]
    cumulative_logprob: float
    finished: bool


def search(
    logprobs: Logprobs,
    prompt: list[int],
    *,
    width: int,
    max_tokens: int,
    length_penalty: float = 1.0,
    early_stopping: bool | Literal["never"] | None = None,
    eos: int | None = None,
) -> list[Found]:
    """The `width` best answers, best first.

    Nothing ends the search before `max_tokens` but `early_stopping` true or false: to stop where nothing can change any
    more must come to the same as going on.
    """

    def score(found: Found) -> float:
        length = len(prompt) + len(found.token_ids) - found.finished
        return found.cumulative_logprob / max(length, 1) ** length_penalty

    def best(answers: list[Found]) -> list[Found]:
        return sorted(answers, key=lambda found: -score(found))[:width]

    live = [Found([], 0.0, False)]
    done: list[Found] = []
    for step in range(1, max_tokens + 1):
        everything = []
        for beam in live:
            follows = logprobs(prompt + beam.token_ids)
            likely = sorted(range(len(follows)), key=lambda token: (-follows[token], token))[: 2 * width]
            everything += [
                Found([*beam.token_ids, token], beam.cumulative_logprob + follows[token], token == eos)
                for token in likely
            ]
        everything.sort(key=lambda found: -found.cumulative_logprob)
        counted = everything if early_stopping is None else everything[:width]
        done = best(done + [found for found in counted if found.finished])
        live = [found for found in everything if not found.finished][:width]
        if step < max_tokens and early_stopping in (True, False) and len(done) == width:
            hope = live[0].cumulative_logprob / (len(prompt) + len(live[0].token_ids)) ** length_penalty
            if early_stopping or hope <= score(done[-1]):
                return done
    return best(done + live)
