"""What a benchmark says: one frozen tree, which is also the JSON that is written. docs/bench.md explains its fields."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import msgspec
from msgspec import Struct

from headrace.bench.arrivals import Rate
from headrace.bench.errors import BenchError
from headrace.bench.load import Outcome
from headrace.bench.samples import Sample, kind_of
from headrace.bench.words import Tokenizer

SERVE_SCHEMA = "headrace.bench.serve/1"


class Distribution(Struct, frozen=True):
    """Of milliseconds. Percentiles between two values are interpolated."""

    mean: float
    std: float
    min: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Distribution | None:
        """None if there are none."""
        values = sorted(value * 1e3 for value in seconds)
        if not values:
            return None
        mean = math.fsum(values) / len(values)
        return cls(
            mean=mean,
            std=math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values)),
            min=values[0],
            p50=percentile(values, 50),
            p90=percentile(values, 90),
            p95=percentile(values, 95),
            p99=percentile(values, 99),
            max=values[-1],
        )


def percentile(ordered: Sequence[float], percent: float) -> float:
    """Of at least one value, the smallest first."""
    place = percent / 100 * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


class RateFigures(Struct, frozen=True):
    """The arrivals that were asked for. `first` and `last` are None where all came at once."""

    first: float | None
    last: float | None
    growth: str
    burstiness: float

    @classmethod
    def of(cls, rate: Rate) -> RateFigures:
        def finite(value: float) -> float | None:
            return None if math.isinf(value) else value

        return cls(finite(rate.first), finite(rate.last), rate.growth, rate.burstiness)


class Goodput(Struct, frozen=True):
    """Requests that met every limit. `limits`: milliseconds by name. `rate`: of them, a second."""

    limits: dict[str, float]
    requests: int
    rate: float


class ErrorFigures(Struct, frozen=True):
    """`example`: what the first one said."""

    count: int
    example: str


class LevelReport(Struct, frozen=True, kw_only=True):
    """One level of a sweep. Rates are per second of `seconds`; distributions are in milliseconds."""

    level: str
    concurrency: int | None
    rate: RateFigures | None
    interrupted: bool
    seconds: float
    completed: int
    failed: int
    cancelled: int
    errors: dict[str, ErrorFigures]
    most_running: int
    prompt_tokens: int
    output_tokens: int
    output_tokens_counted_by: dict[str, int]
    unexpected_prompt_lengths: int
    unexpected_output_lengths: int
    tokens_per_event: float | None
    request_rate: float
    prompt_token_rate: float
    output_token_rate: float
    total_token_rate: float
    ttft: Distribution | None
    tpot: Distribution | None
    itl: Distribution | None
    e2el: Distribution | None
    goodput: Goodput | None
    lateness: Distribution | None
    client_cpu_seconds: float


class ServeReport(Struct, frozen=True, kw_only=True):
    """Everything. `began` in UTC. `dataset`: where the prompts come from, in words."""

    schema: str
    version: str
    began: str
    url: str
    model: str
    endpoint: str
    dataset: dict[str, str | int | float | bool | None]
    ignore_eos: bool
    extra_body: dict[str, object]
    seed: int
    warmup_requests: int
    interrupted: bool
    levels: list[LevelReport]

    def json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


@dataclass(frozen=True, slots=True)
class Limits:
    """What a good request stays within: milliseconds by "ttft", "tpot" and "e2el"."""

    milliseconds: Mapping[str, float]

    def __post_init__(self) -> None:
        for name, limit in self.milliseconds.items():
            if name not in ("ttft", "tpot", "e2el"):
                raise BenchError(f"goodput knows ttft, tpot and e2el, not {name!r}.")
            if not 0 < limit < math.inf:
                raise BenchError(f"goodput: the limit of {name} must be above 0 milliseconds, got {limit:g}.")

    def met_by(self, sample: Sample, output_tokens: int) -> bool:
        """A request without the measure (a single token has no time per token) meets its limit."""
        measured = {
            "ttft": sample.time_to_first_token if sample.arrivals else None,
            "tpot": sample.time_per_token(output_tokens) if sample.arrivals else None,
            "e2el": sample.latency,
        }
        return all((measured[name] or 0.0) * 1e3 <= limit for name, limit in self.milliseconds.items())


def report_of(
    level: str,
    outcome: Outcome,
    *,
    concurrency: int | None,
    rate: Rate | None,
    limits: Limits,
    tokenizer: Tokenizer | None,
) -> LevelReport:
    """The figures of a load.

    Where the server's usage does not say how long an answer was, it is counted by the `tokenizer`, else by its events.
    """
    samples = [sample for _, sample in outcome.answered]
    counted = [_output_tokens(sample, tokenizer) for sample in samples]
    output = [tokens for tokens, _ in counted]
    prompt = [
        sample.prompt_tokens if sample.prompt_tokens is not None else (ask.prompt_tokens or 0)
        for ask, sample in outcome.answered
    ]
    streams = [(sample, tokens) for sample, tokens in zip(samples, output, strict=True) if sample.arrivals]
    events = sum(len(sample.arrivals) for sample, _ in streams)
    seconds = max(outcome.seconds, 1e-9)
    good = sum(limits.met_by(sample, tokens) for sample, tokens in zip(samples, output, strict=True))
    per_token = (sample.time_per_token(tokens) for sample, tokens in streams)
    return LevelReport(
        level=level,
        concurrency=concurrency,
        rate=None if rate is None else RateFigures.of(rate),
        interrupted=outcome.interrupted,
        seconds=outcome.seconds,
        completed=len(samples),
        failed=len(outcome.failures),
        cancelled=outcome.cancelled,
        errors=_errors(outcome),
        most_running=outcome.most_running,
        prompt_tokens=sum(prompt),
        output_tokens=sum(output),
        output_tokens_counted_by=dict(Counter(by for _, by in counted if by)),
        unexpected_prompt_lengths=sum(
            ask.prompt_tokens is not None and sample.prompt_tokens not in (None, ask.prompt_tokens)
            for ask, sample in outcome.answered
        ),
        unexpected_output_lengths=sum(
            ask.output_tokens is not None and sample.output_tokens not in (None, ask.output_tokens)
            for ask, sample in outcome.answered
        ),
        tokens_per_event=sum(tokens for _, tokens in streams) / events if events else None,
        request_rate=len(samples) / seconds,
        prompt_token_rate=sum(prompt) / seconds,
        output_token_rate=sum(output) / seconds,
        total_token_rate=(sum(prompt) + sum(output)) / seconds,
        ttft=Distribution.of(sample.time_to_first_token for sample, _ in streams),
        tpot=Distribution.of(value for value in per_token if value is not None),
        itl=Distribution.of(itertools.chain.from_iterable(sample.gaps for sample, _ in streams)),
        e2el=Distribution.of(sample.latency for sample in samples),
        goodput=Goodput(dict(limits.milliseconds), good, good / seconds) if limits.milliseconds else None,
        lateness=None if rate is None else Distribution.of(outcome.lateness),
        client_cpu_seconds=outcome.cpu_seconds,
    )


def _output_tokens(sample: Sample, tokenizer: Tokenizer | None) -> tuple[int, str]:
    """How many tokens an answer has, and what says so; nothing does for an answer that is no text."""
    if not sample.arrivals:
        return 0, ""
    if sample.output_tokens is not None:
        return sample.output_tokens, "usage"
    if tokenizer is not None:
        return len(tokenizer.encode(sample.text, add_special_tokens=False)), "tokenizer"
    return len(sample.arrivals), "events"


def _errors(outcome: Outcome) -> dict[str, ErrorFigures]:
    counts = Counter(kind_of(error) for error in outcome.failures)
    first = {kind_of(error): error.message for error in reversed(outcome.failures)}
    return {kind: ErrorFigures(count, first[kind]) for kind, count in counts.most_common()}
