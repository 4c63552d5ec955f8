"""Measure Headrace and its peers side by side, in rounds, and keep every figure.

    python benchmarks/compare.py [--rounds 3] [--contenders headrace llama.cpp] [--out benchmarks/results/compare.json]

A round starts each contender in turn, one at a time, waits until it is ready, loads it and stops it; rounds start with
another contender each. The bandwidth of the memory is read at the start of each round. What is written are the single
figures; `report.py` takes medians over the rounds and writes `RESULTS.md`. A contender whose files are not there is
left out, and says so.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bandwidth import read_bandwidth, weight_bytes
from contenders import CONTENDERS, Capacity, Contender
from load import Load

HERE = Path(__file__).parent
CONCURRENCY = (1, 8, 32)
PREFILL_TOKENS = (512, 2000)
FEWEST_REQUESTS = 4
LONG = ("headrace", "headrace-float32", "llama.cpp")
"""Whose prefill and memory at 8k tokens are measured, in a life of their own: llama.cpp divides its context among its
places at start, so room for long prompts would make it slower at short ones."""


def speed_loads(seed: str, requests_per_client: int) -> list[Load]:
    """The load of the table: sampled by the server's defaults, then greedily."""
    return [
        Load(
            concurrency=concurrency,
            requests=max(concurrency * requests_per_client, FEWEST_REQUESTS),
            seed=f"{seed} {concurrency} {temperature}",
            temperature=temperature,
        )
        for temperature in (None, 0.0)
        for concurrency in CONCURRENCY
    ]


def long_loads(seed: str) -> list[Load]:
    """First 8k tokens of KV at once, after which the memory is of interest; then prompts alone."""
    fill = Load(concurrency=8, requests=8, seed=f"{seed} fill", prompt_tokens=960)
    prefill = [
        Load(concurrency=1, requests=4, seed=f"{seed} prefill {tokens}", prompt_tokens=tokens, output_tokens=1)
        for tokens in PREFILL_TOKENS
    ]
    return [fill, *prefill]


def measure(name: str, contender: Contender, round_number: int, requests_per_client: int) -> list[dict[str, Any]]:
    """The records of one contender in one round."""
    seed = f"{round_number} {name}"
    fields = {"contender": name, "label": contender.name, "round": round_number}
    visit = contender.visit(speed_loads(seed, requests_per_client), Capacity(sequences=max(CONCURRENCY), tokens=512))
    records: list[dict[str, Any]] = [fields | {"measure": "ready", "seconds": visit.ready_seconds}]
    for load, outcome in zip(speed_loads(seed, requests_per_client), visit.outcomes, strict=True):
        records.append(fields | {"measure": "speed", "temperature": load.temperature} | outcome)
    if name in LONG:
        visit = contender.visit(long_loads(seed), Capacity(sequences=8, tokens=2048))
        records.append(fields | {"measure": "ready", "seconds": visit.ready_seconds})
        for measured, outcome in zip(("fill", *["prefill"] * len(PREFILL_TOKENS)), visit.outcomes, strict=True):
            records.append(fields | {"measure": measured} | outcome)
    return records


def machine() -> dict[str, Any]:
    cpu_lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in cpu_lines)}
    return {
        "cpu": cpu.get("model name", platform.processor()),
        "flags": [flag for flag in cpu.get("flags", "").split() if flag.startswith(("avx", "amx", "fma"))],
        "processors": os.cpu_count(),
        "memory": os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=list(CONTENDERS))
    parser.add_argument("--requests-per-client", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "compare.json")
    args = parser.parse_args()

    names = [name for name in args.contenders if installed(CONTENDERS[name])]
    results: dict[str, Any] = {
        "began": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "command": "python benchmarks/compare.py " + " ".join(sys.argv[1:]),
        "machine": machine(),
        "weight_bytes": weight_bytes("smollm2"),
        "records": [],
    }
    args.out.parent.mkdir(parents=True, exist_ok=True)
    for round_number in range(args.rounds):
        bandwidth = read_bandwidth(os.cpu_count() or 1)
        results["records"].append({"measure": "bandwidth", "round": round_number, "bytes_per_second": bandwidth})
        first = round_number % len(names)
        for name in names[first:] + names[:first]:
            print(f"round {round_number + 1} of {args.rounds}: {name}", flush=True)
            records = measure(name, CONTENDERS[name], round_number, args.requests_per_client)
            tell(records)
            results["records"] += records
            args.out.write_text(json.dumps(results, indent=1) + "\n")


def installed(contender: Contender) -> bool:
    if missing := [path for path in contender.needs if not path.exists()]:
        print(f"left out: {contender.name}, for want of {', '.join(map(str, missing))}", file=sys.stderr)
    return not missing


def tell(records: Sequence[dict[str, Any]]) -> None:
    for record in records:
        if record["measure"] == "ready":
            print(f"  ready after {record['seconds']:.2f} s")
        else:
            rate = "prompt_rate" if record["measure"] == "prefill" else "output_rate"
            print(
                f"  {record['measure']} {record['concurrency']} x {record['prompt_tokens']}"
                f" t={record.get('temperature')}: {record[rate]:.1f} tok/s, first {record['ttft_p50']:.0f} ms,"
                f" then {record['tpot_p50'] or 0:.1f} ms, {record['memory'] / 1e6:.0f} MB,"
                f" client {record['client_cpu'] / record['seconds']:.1%} CPU",
                flush=True,
            )


if __name__ == "__main__":
    main()
