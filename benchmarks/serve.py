"""Load one OpenAI-compatible server and report what its users would see.

    python benchmarks/serve.py --url http://127.0.0.1:8000 --concurrency 1 8 32

A closed loop: `concurrency` clients, each sending its next completion when the last has ended. Prompts are random
token ids (another seed at each level, so that no prefix cache answers), outputs have a fixed length (`ignore_eos`),
temperature is whatever the server takes by default unless --temperature is given. Works against any server with
/v1/completions, so peers are measured by the same command.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass, field

import httpx


@dataclass
class Sample:
    """One request: monotonic seconds at which it was sent and at which each chunk with tokens arrived."""

    sent: float
    arrivals: list[float] = field(default_factory=list)
    tokens: int = 0


async def complete(client: httpx.AsyncClient, body: dict) -> Sample:
    sample = Sample(sent=time.monotonic())
    async with client.stream("POST", "/v1/completions", json=body) as response:
        if response.status_code != 200:
            raise SystemExit(f"{response.status_code}: {(await response.aread()).decode()}")
        async for line in response.aiter_lines():
            if not line.startswith("data: ") or line == "data: [DONE]":
                continue
            chunk = json.loads(line[6:])
            if "error" in chunk:
                raise SystemExit(f"error in the stream: {chunk['error']}")
            if chunk["choices"]:
                sample.arrivals.append(time.monotonic())
            elif chunk.get("usage"):
                sample.tokens = chunk["usage"]["completion_tokens"]
    return sample


async def load(client: httpx.AsyncClient, bodies: list[dict], concurrency: int) -> tuple[list[Sample], float]:
    waiting = iter(bodies)
    samples: list[Sample] = []

    async def one_client() -> None:
        for body in waiting:
            samples.append(await complete(client, body))

    began = time.monotonic()
    await asyncio.gather(*(one_client() for _ in range(concurrency)))
    return samples, time.monotonic() - began


def report(samples: list[Sample], seconds: float, concurrency: int) -> dict[str, float]:
    first = [(sample.arrivals[0] - sample.sent) * 1e3 for sample in samples]
    per_token = [
        (sample.arrivals[-1] - sample.arrivals[0]) / (sample.tokens - 1) * 1e3
        for sample in samples
        if sample.tokens > 1
    ]
    return {
        "concurrency": concurrency,
        "requests": len(samples),
        "output tok/s": sum(sample.tokens for sample in samples) / seconds,
        "TTFT ms p50": statistics.median(first),
        "TTFT ms p99": sorted(first)[int(0.99 * (len(first) - 1))],
        "ms/token p50": statistics.median(per_token),
        "ms/token p99": sorted(per_token)[int(0.99 * (len(per_token) - 1))],
    }


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--model", help="default: the first one the server lists")
    parser.add_argument("--concurrency", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--requests-per-client", type=int, default=3)
    parser.add_argument("--prompt-tokens", type=int, default=128)
    parser.add_argument("--output-tokens", type=int, default=64)
    parser.add_argument("--vocab", type=int, default=49152, help="prompt ids are drawn below this")
    parser.add_argument("--temperature", type=float, help="default: not sent")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=args.url, timeout=600, limits=limits) as client:
        model = args.model or (await client.get("/v1/models")).json()["data"][0]["id"]

        def bodies(count: int, seed: int) -> list[dict]:
            ids = random.Random(seed)
            body = {
                "model": model,
                "max_tokens": args.output_tokens,
                "ignore_eos": True,
                "stream": True,
                "stream_options": {"include_usage": True},
            }
            if args.temperature is not None:
                body["temperature"] = args.temperature
            return [
                {**body, "prompt": [ids.randrange(100, args.vocab) for _ in range(args.prompt_tokens)]}
                for _ in range(count)
            ]

        await load(client, bodies(2, args.seed - 1), 2)  # warm-up, not counted
        header = None
        for level, concurrency in enumerate(args.concurrency):
            count = max(concurrency * args.requests_per_client, 4)
            row = report(*await load(client, bodies(count, args.seed + level), concurrency), concurrency)
            if header is None:
                header = list(row)
                print("| " + " | ".join(header) + " |\n|" + "---|" * len(header))
            print(
                "| "
                + " | ".join(f"{value:.1f}" if isinstance(value, float) else str(value) for value in row.values())
                + " |"
            )


if __name__ == "__main__":
    asyncio.run(main())
