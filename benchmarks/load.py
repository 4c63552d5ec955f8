"""A closed loop of completions against one server: what every figure over HTTP is measured with.

Prompts are random token ids, another seed for each load, so that no prefix cache answers; outputs have a fixed length
(`ignore_eos`), and that they have it is checked.
"""

from __future__ import annotations

import asyncio
import json
import random
import statistics
import time
import urllib.request
from dataclasses import asdict, dataclass
from typing import Any

from sse import BadAnswer, Sample, read, record, request_bytes

FIRST_PLAIN_ID = 100
"""Ids below it are control tokens in the vocabularies measured here."""

LONGEST_SECONDS = 900
"""After that a server is taken to hang."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """`concurrency` clients, each sending its next completion when the last has ended, `requests` in all.

    `temperature` None sends none: the server's default. Prompt ids are drawn below `vocab` from `seed`.
    """

    concurrency: int
    requests: int
    seed: str
    prompt_tokens: int = 128
    output_tokens: int = 64
    temperature: float | None = None
    vocab: int = 49152

    def prompts(self) -> list[list[int]]:
        ids = random.Random(self.seed)
        return [
            [ids.randrange(FIRST_PLAIN_ID, self.vocab) for _ in range(self.prompt_tokens)] for _ in range(self.requests)
        ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a load. Times in milliseconds: to the first token, and per token after the first.

    `client_cpu`: seconds of processor time of the load generator itself, in `seconds` of the load.
    """

    concurrency: int
    requests: int
    prompt_tokens: int
    seconds: float
    output_rate: float
    prompt_rate: float
    ttft_p50: float
    ttft_p99: float
    tpot_p50: float | None
    tpot_p99: float | None
    client_cpu: float

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def first_model(url: str) -> str:
    with urllib.request.urlopen(f"{url}/v1/models", timeout=30) as response:
        return json.load(response)["data"][0]["id"]


def run(url: str, model: str, load: Load) -> Outcome:
    """Put `load` on the server at `url`. Raises `BadAnswer` if an answer is not what was asked for, `TimeoutError` if
    the whole takes longer than `LONGEST_SECONDS`."""
    return asyncio.run(_run(url, model, load))


async def _run(url: str, model: str, load: Load) -> Outcome:
    waiting = iter([request_bytes(url, "/v1/completions", _body(model, load, prompt)) for prompt in load.prompts()])
    recordings = []

    async def client() -> None:
        for request in waiting:
            recordings.append(await record(url, request))

    began, began_cpu = time.monotonic(), time.process_time()
    async with asyncio.timeout(LONGEST_SECONDS):
        await asyncio.gather(*(client() for _ in range(load.concurrency)))
    seconds, client_cpu = time.monotonic() - began, time.process_time() - began_cpu
    samples = [read(recording) for recording in recordings]
    for sample in samples:
        if (sample.prompt_tokens, sample.output_tokens) != (load.prompt_tokens, load.output_tokens):
            raise BadAnswer(
                f"{load.prompt_tokens} + {load.output_tokens} tokens were asked for, usage says "
                f"{sample.prompt_tokens} + {sample.output_tokens}"
            )
    return summary(load, samples, seconds, client_cpu)


def _body(model: str, load: Load, prompt: list[int]) -> dict[str, Any]:
    body: dict[str, Any] = {
        "model": model,
        "prompt": prompt,
        "max_tokens": load.output_tokens,
        "ignore_eos": True,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if load.temperature is not None:
        body["temperature"] = load.temperature
    return body


def summary(load: Load, samples: list[Sample], seconds: float, client_cpu: float) -> Outcome:
    first = [(sample.arrivals[0] - sample.sent) * 1e3 for sample in samples]
    later = [
        (sample.arrivals[-1] - sample.arrivals[0]) / (sample.output_tokens - 1) * 1e3
        for sample in samples
        if sample.output_tokens > 1
    ]
    return Outcome(
        concurrency=load.concurrency,
        requests=len(samples),
        prompt_tokens=load.prompt_tokens,
        seconds=seconds,
        output_rate=sum(sample.output_tokens for sample in samples) / seconds,
        prompt_rate=sum(sample.prompt_tokens for sample in samples) / seconds,
        ttft_p50=statistics.median(first),
        ttft_p99=_percentile(first, 0.99),
        tpot_p50=statistics.median(later) if later else None,
        tpot_p99=_percentile(later, 0.99) if later else None,
        client_cpu=client_cpu,
    )


def _percentile(values: list[float], share: float) -> float:
    return sorted(values)[round(share * (len(values) - 1))]
