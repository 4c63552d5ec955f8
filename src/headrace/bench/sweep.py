"""A benchmark of a server: a little load to warm it up, then one level of load after the other."""

from __future__ import annotations

import itertools
import math
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from headrace import __version__
from headrace.bench.arrivals import Rate, arrival_times
from headrace.bench.endpoints import Asking
from headrace.bench.errors import BenchError
from headrace.bench.load import Load, LoadInterrupted, Outcome, run
from headrace.bench.prompts import Prompt
from headrace.bench.report import SERVE_SCHEMA, LevelReport, Limits, ServeReport, report_of
from headrace.bench.wire import Server
from headrace.bench.words import Tokenizer
from headrace.client.settings import Settings

_FEWEST_REQUESTS = 4
_REQUESTS_PER_CLIENT = 3
_SECONDS_OF_ARRIVALS = 10
_ALL_AT_ONCE = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """`rate` None is a closed loop: `concurrency` clients, each sending its next request when the last has ended.

    With a rate, `concurrency` is the most that may run at a time, None for no limit. `requests` None: as many as give
    each client a few, or the rate some seconds.
    """

    concurrency: int | None = None
    rate: Rate | None = None
    requests: int | None = None

    def __post_init__(self) -> None:
        if self.concurrency is None and self.rate is None:
            raise BenchError("A load needs a concurrency or a rate.")
        if self.concurrency is not None and self.concurrency < 1:
            raise BenchError(f"concurrency must be at least 1, got {self.concurrency}.")
        if self.requests is not None and self.requests < 1:
            raise BenchError(f"requests must be at least 1, got {self.requests}.")

    def __str__(self) -> str:
        return str(self.concurrency) if self.rate is None else f"{self.rate}/s"

    @property
    def count(self) -> int:
        """How many requests are sent."""
        if self.requests is not None:
            return self.requests
        if self.rate is not None and math.isfinite(self.rate.first):
            return max(_FEWEST_REQUESTS, math.ceil(self.rate.mean * _SECONDS_OF_ARRIVALS))
        if self.concurrency is None:
            return _ALL_AT_ONCE
        return max(_FEWEST_REQUESTS, _REQUESTS_PER_CLIENT * self.concurrency)


class Progress(Protocol):
    """Is told how far a sweep is, and shows it."""

    def begin(self, level: str, requests: int) -> None: ...

    def advance(self, succeeded: bool) -> None: ...


class NoProgress:
    def begin(self, level: str, requests: int) -> None:
        """Nobody looks."""

    def advance(self, succeeded: bool) -> None:
        """Nobody looks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sweep:
    """What to measure. Prompts are taken from `prompts` as they are needed, so that levels share none.

    `dataset` says in the report where they come from. `tokenizer`: counts what the server does not.
    """

    settings: Settings
    asking: Asking
    prompts: Iterator[Prompt]
    dataset: Mapping[str, str | int | float | bool | None]
    levels: Sequence[Level]
    seed: int = 0
    warmup_requests: int = 2
    timeout: float = 600.0
    limits: Limits = field(default_factory=lambda: Limits({}))
    tokenizer: Tokenizer | None = None

    def run(self, progress: Progress | None = None) -> ServeReport:
        """Raises a `ClientError` if the server answers none of the first requests: what follows would mean nothing.

        Ctrl-C ends it, with a report of what was measured so far.
        """
        progress = progress or NoProgress()
        server = Server(self.settings)
        began = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        reports: list[LevelReport] = []
        interrupted = False
        try:
            self._warm_up(server, progress)
            for level in self.levels:
                outcome = self._measure(server, level, progress)
                interrupted = outcome.interrupted
                reports.append(self._report(level, outcome))
                if interrupted:
                    break
        except KeyboardInterrupt:  # between two loads
            interrupted = True
        return ServeReport(
            schema=SERVE_SCHEMA,
            version=__version__,
            began=began,
            url=self.settings.base_url,
            model=self.asking.model,
            endpoint=self.asking.endpoint,
            dataset=dict(self.dataset),
            ignore_eos=self.asking.ignore_eos,
            extra_body=dict(self.asking.extra),
            seed=self.seed,
            warmup_requests=self.warmup_requests,
            interrupted=interrupted,
            levels=reports,
        )

    def _warm_up(self, server: Server, progress: Progress) -> None:
        if not self.warmup_requests:
            return
        level = Level(concurrency=self.warmup_requests, requests=self.warmup_requests)
        progress.begin("warm-up", level.count)
        outcome = run(server, self._load(level), progress.advance)
        if not outcome.answered:
            raise outcome.failures[0]

    def _measure(self, server: Server, level: Level, progress: Progress) -> Outcome:
        load = self._load(level)
        progress.begin(str(level), level.count)
        try:
            return run(server, load, progress.advance)
        except LoadInterrupted as interruption:
            return interruption.outcome

    def _load(self, level: Level) -> Load:
        asks = [self.asking.ask(prompt) for prompt in itertools.islice(self.prompts, level.count)]
        if level.rate is None:
            due = [0.0] * len(asks)
        else:
            due = arrival_times(level.rate, len(asks), random.Random(f"{self.seed} arrivals {level}"))
        return Load(asks=asks, due=due, concurrency=level.concurrency, timeout=self.timeout)

    def _report(self, level: Level, outcome: Outcome) -> LevelReport:
        return report_of(
            str(level),
            outcome,
            concurrency=level.concurrency,
            rate=level.rate,
            limits=self.limits,
            tokenizer=self.tokenizer,
        )
