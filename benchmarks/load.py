"""The load that servers are compared under: a closed loop of completions, driven and measured by `headrace.bench`.

Prompts are random token ids, another seed for each load, so that no prefix cache answers; outputs have a fixed length
(`ignore_eos`), and that they have it is checked.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from headrace.bench.endpoints import Ask, Asking, Endpoint
from headrace.bench.load import Load as Requests
from headrace.bench.load import Outcome, run
from headrace.bench.prompts import Prompt
from headrace.bench.report import Limits, report_of
from headrace.bench.target import served_model
from headrace.bench.wire import Server
from headrace.client.settings import Settings

FIRST_PLAIN_ID = 100
"""Ids below it are control tokens in the vocabulary measured here."""

VOCAB = 49152

LONGEST_SECONDS = 900.0
"""After that a server is taken to hang."""


class BadAnswer(Exception):
    """The server answered something else than the completions that were asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`concurrency` clients, each sending its next completion when the last has ended, `requests` in all.

    `temperature` None sends none: the server's default. Prompts are drawn from `seed`.
    """

    concurrency: int
    requests: int
    seed: str
    prompt_tokens: int = 128
    output_tokens: int = 64
    temperature: float | None = None

    def prompts(self) -> list[list[int]]:
        ids = random.Random(self.seed)
        return [[ids.randrange(FIRST_PLAIN_ID, VOCAB) for _ in range(self.prompt_tokens)] for _ in range(self.requests)]

    def asks(self, model: str) -> list[Ask]:
        extra = {} if self.temperature is None else {"temperature": self.temperature}
        asking = Asking(endpoint=Endpoint.COMPLETIONS, model=model, ignore_eos=True, extra=extra)
        return [
            asking.ask(Prompt(content=ids, tokens=self.prompt_tokens, output_tokens=self.output_tokens))
            for ids in self.prompts()
        ]


class Target:
    """A server, and its model that completes."""

    def __init__(self, url: str) -> None:
        settings = Settings.of(url, "", None, None)
        self._server = Server(settings)
        self._model = served_model(settings, Endpoint.COMPLETIONS)

    def run(self, load: Load) -> dict[str, Any]:
        """Put `load` on it; what came of it, as `figures` says. Raises `BadAnswer`."""
        asks = load.asks(self._model)
        requests = Requests(asks=asks, due=[0.0] * len(asks), concurrency=load.concurrency, timeout=LONGEST_SECONDS)
        return figures(load, run(self._server, requests))


def figures(load: Load, outcome: Outcome) -> dict[str, Any]:
    """What is kept of a load. Times in milliseconds: to the first token, and per token after the first.

    `client_cpu`: seconds of processor time of the load generator. Raises `BadAnswer` if anything went wrong.
    """
    if outcome.failures:
        raise BadAnswer(outcome.failures[0].message)
    report = report_of(
        str(load.concurrency),
        outcome,
        concurrency=load.concurrency,
        rate=None,
        limits=Limits({}),
        tokenizer=None,
    )
    if set(report.output_tokens_counted_by) != {"usage"}:
        raise BadAnswer("the server does not say how many tokens it has read and written")
    if report.unexpected_prompt_lengths or report.unexpected_output_lengths:
        raise BadAnswer(
            f"answers were to have {load.prompt_tokens} + {load.output_tokens} tokens; usage says otherwise"
        )
    assert report.ttft is not None
    return {
        "concurrency": load.concurrency,
        "requests": report.completed,
        "prompt_tokens": load.prompt_tokens,
        "seconds": report.seconds,
        "output_rate": report.output_token_rate,
        "prompt_rate": report.prompt_token_rate,
        "ttft_p50": report.ttft.p50,
        "ttft_p99": report.ttft.p99,
        "tpot_p50": None if report.tpot is None else report.tpot.p50,
        "tpot_p99": None if report.tpot is None else report.tpot.p99,
        "client_cpu": report.client_cpu_seconds,
    }
