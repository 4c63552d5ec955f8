"""The engine itself, without a server: how long a batch takes, and how much gets through.

Prompts are random token ids and none comes twice, so that no prefix cache answers. Tokens are sampled at temperature 1,
as a server does by default, and no text is made of them.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from headrace import __version__
from headrace.bench.errors import BenchError
from headrace.bench.prompts import Lengths, Prompt, random_prompts
from headrace.bench.report import Distribution
from headrace.bench.words import one_token_words
from headrace.llm import LLM, RequestOutput, SamplingParams

LATENCY_SCHEMA = "headrace.bench.latency/1"
THROUGHPUT_SCHEMA = "headrace.bench.throughput/1"

_WARMUP = 2
"""Requests before those that are counted."""


class OfflineReport(Struct, frozen=True, kw_only=True):
    """What both have in common. Tokens are those of all requests; rates are per second of `seconds`."""

    schema: str
    version: str
    model: str
    began: str
    seed: int
    requests: int
    prompt_tokens: int
    output_tokens: int
    seconds: float
    request_rate: float
    prompt_token_rate: float
    output_token_rate: float
    total_token_rate: float

    def json(self) -> str:
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode() + "\n"


class LatencyReport(OfflineReport, frozen=True, kw_only=True):
    """`latency`: milliseconds from handing over a batch to its last token."""

    batch_size: int
    iterations: int
    interrupted: bool
    latency: Distribution


class ThroughputReport(OfflineReport, frozen=True, kw_only=True):
    """All requests were handed over at once."""


def measure_latency(
    llm: LLM,
    model: str,
    lengths: Lengths,
    *,
    batch_size: int,
    iterations: int,
    warmup: int,
    seed: int = 0,
    on_end: Callable[[], None] = lambda: None,
) -> LatencyReport:
    """A batch run to its end, `iterations` times after `warmup` times that do not count; `on_end` is told of each.

    `model` is what it is called in the report. Ctrl-C ends it with what there is; it is raised if that is nothing.
    """
    if batch_size < 1 or iterations < 1 or warmup < 0:
        raise BenchError("A batch needs 1 request, and there must be 1 iteration, at least.")
    prompts = _prompts(llm, lengths, seed)
    began = time.time()
    outputs: list[RequestOutput] = []
    latencies: list[float] = []
    try:
        for number in range(warmup + iterations):
            batch = list(itertools.islice(prompts, batch_size))
            seconds, answered = _run(llm, batch)
            if number >= warmup:
                latencies.append(seconds)
                outputs += answered
            on_end()
    except KeyboardInterrupt:
        if not latencies:
            raise
    latency = Distribution.of(latencies)
    assert latency is not None
    return LatencyReport(
        **_figures(LATENCY_SCHEMA, model, began, seed, outputs, sum(latencies)),
        batch_size=batch_size,
        iterations=len(latencies),
        interrupted=len(latencies) < iterations,
        latency=latency,
    )


def measure_throughput(
    llm: LLM, model: str, lengths: Lengths, *, requests: int, seed: int = 0, progress: bool = False
) -> ThroughputReport:
    """So many requests at once, after a few that do not count. `model` is what it is called in the report.

    `progress` shows a bar.
    """
    if requests < 1:
        raise BenchError(f"requests must be at least 1, got {requests}.")
    prompts = _prompts(llm, lengths, seed)
    began = time.time()
    _run(llm, list(itertools.islice(prompts, _WARMUP)))
    seconds, outputs = _run(llm, list(itertools.islice(prompts, requests)), progress=progress)
    return ThroughputReport(**_figures(THROUGHPUT_SCHEMA, model, began, seed, outputs, seconds))


def _prompts(llm: LLM, lengths: Lengths, seed: int) -> Iterator[Prompt]:
    return random_prompts(one_token_words(llm.get_tokenizer()), lengths, as_ids=True, seed=seed)


def _run(llm: LLM, prompts: Sequence[Prompt], *, progress: bool = False) -> tuple[float, list[RequestOutput]]:
    """Seconds, and the answers."""
    sampling = [
        SamplingParams(temperature=1.0, max_tokens=prompt.output_tokens, ignore_eos=True, detokenize=False)
        for prompt in prompts
    ]
    contents = cast(list[list[int]], [prompt.content for prompt in prompts])
    began = time.perf_counter()
    outputs = llm.generate(contents, sampling, use_tqdm=progress)
    return time.perf_counter() - began, outputs


def _figures(
    schema: str, model: str, began: float, seed: int, outputs: Sequence[RequestOutput], seconds: float
) -> dict[str, Any]:
    """The fields of an `OfflineReport`."""
    prompt_tokens = sum(len(output.prompt_token_ids) for output in outputs)
    output_tokens = sum(len(answer.token_ids) for output in outputs for answer in output.outputs)
    return {
        "schema": schema,
        "version": __version__,
        "model": model,
        "began": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(began)),
        "seed": seed,
        "requests": len(outputs),
        "prompt_tokens": prompt_tokens,
        "output_tokens": output_tokens,
        "seconds": seconds,
        "request_rate": len(outputs) / seconds,
        "prompt_token_rate": prompt_tokens / seconds,
        "output_token_rate": output_tokens / seconds,
        "total_token_rate": (prompt_tokens + output_tokens) / seconds,
    }
