"""What a JSON schema costs: throughput with one against throughput without, on a real server.

    python benchmarks/structured.py [--concurrency 16] [--rounds 3]

Both loads have the same number of prompt and output tokens: the free one goes on past the end (`ignore_eos`), and the
schema asks for more items than fit. They take turns, and the ratio is that of the medians. The time to find the tokens
that the schema allows, per token, is the server's own metric; most of it is spent beside the forward pass.
"""

from __future__ import annotations

import argparse
import re
import socket
import statistics
import sys
import tempfile
import urllib.request
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from load import Load, Target
from processes import started

from headrace.bench.endpoints import Ask, Asking, Endpoint
from headrace.bench.prompts import Prompt

WANTED = 0.85
"""Least share of the free throughput."""

SCHEMA = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 3, "maxLength": 30},
            "kind": {"enum": ["person", "place", "event", "thing"]},
            "year": {"type": "integer", "minimum": 1900, "maximum": 2030},
            "tags": {"type": "array", "items": {"type": "string", "maxLength": 12}, "maxItems": 4},
            "score": {"type": "number"},
            "note": {"anyOf": [{"type": "string", "pattern": "^[a-z ]{1,40}$"}, {"type": "null"}]},
        },
        "required": ["name", "kind", "year", "tags", "score", "note"],
        "additionalProperties": False,
    },
}
_METRIC = re.compile(r"^vllm:grammar_mask_seconds_(sum|count)\{[^}]*\} (\S+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShapedLoad(Load):
    """Completions that have further fields, `extra`."""

    extra: Mapping[str, Any]

    def asks(self, model: str) -> list[Ask]:
        asking = Asking(endpoint=Endpoint.COMPLETIONS, model=model, ignore_eos=True, extra=self.extra)
        return [
            asking.ask(Prompt(content=ids, tokens=self.prompt_tokens, output_tokens=self.output_tokens))
            for ids in self.prompts()
        ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output-tokens", type=int, default=96)
    options = parser.parse_args()
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "headrace", "serve", options.model, "--port", str(port)]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "server.log"
        with started(command, f"http://127.0.0.1:{port}", log, {"XDG_STATE_HOME": folder}) as server:
            free, shaped = measure(server.url, options)
            seconds = mask_seconds(server.url)
    ratio = shaped / free
    print(f"free:         {free:7.1f} tok/s")
    print(f"JSON schema:  {shaped:7.1f} tok/s, {100 * ratio:.1f} % (at least {100 * WANTED:.0f} % wanted)")
    print(f"finding what the schema allows: {1e6 * seconds:.0f} µs a token")
    return 0 if ratio >= WANTED else 1


def measure(url: str, options: argparse.Namespace) -> tuple[float, float]:
    """Output tokens a second without and with the schema: medians of the rounds after a first one that warms up."""
    target = Target(url)
    rates: dict[str, list[float]] = {"free": [], "shaped": []}
    for number in range(options.rounds + 1):
        for name, extra in (("free", {}), ("shaped", {"structured_outputs": {"json": SCHEMA}})):
            load = ShapedLoad(
                concurrency=options.concurrency,
                requests=2 * options.concurrency if number else options.concurrency,
                seed=f"{name} {number}",
                prompt_tokens=64,
                output_tokens=options.output_tokens,
                extra=extra,
            )
            rate = target.run(load)["output_rate"]
            print(f"round {number}, {name}: {rate:.1f} tok/s", flush=True)
            if number:
                rates[name].append(rate)
    return statistics.median(rates["free"]), statistics.median(rates["shaped"])


def mask_seconds(url: str) -> float:
    """Mean time per token, by the server's metrics."""
    with urllib.request.urlopen(f"{url}/metrics") as response:
        found = dict(_METRIC.findall(response.read().decode()))
    return float(found["sum"]) / float(found["count"])


if __name__ == "__main__":
    sys.exit(main())
