"""How cost grows: throughput against concurrency and against context, as figures and as plots.

    python benchmarks/curves.py [--contenders headrace llama.cpp]

Concurrency 1 … 64 at 128 prompt and 64 output tokens; context 128 … 8k (prompt and 64 output tokens) with one sequence
and with four. Writes results/curves.json and plots/*.svg; `report.py` makes the tables.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from typing import Any

from compare import FEWEST_REQUESTS, installed, machine
from contenders import CONTENDERS, Capacity, Contender
from load import Load

from headrace.bench.svg import line_plot

HERE = Path(__file__).parent
CONCURRENCY = (1, 2, 4, 8, 16, 32, 64)
CONTEXT = (128, 256, 512, 1024, 2048, 4096, 8192)
CONTEXT_CONCURRENCY = (1, 4)
OUTPUT_TOKENS = 64


def concurrency_loads(name: str) -> list[Load]:
    return [
        Load(concurrency=level, requests=max(2 * level, FEWEST_REQUESTS), seed=f"curve {name} {level}")
        for level in CONCURRENCY
    ]


def context_loads(name: str) -> list[Load]:
    return [
        Load(
            concurrency=level,
            requests=max(level, 2),
            seed=f"context {name} {level} {context}",
            prompt_tokens=context - OUTPUT_TOKENS,
            output_tokens=OUTPUT_TOKENS,
        )
        for level in CONTEXT_CONCURRENCY
        for context in CONTEXT
    ]


def measure(name: str, contender: Contender) -> list[dict[str, Any]]:
    fields = {"contender": name, "label": contender.name}
    visits = (
        ("concurrency", concurrency_loads(name), Capacity(sequences=max(CONCURRENCY), tokens=256)),
        ("context", context_loads(name), Capacity(sequences=max(CONTEXT_CONCURRENCY), tokens=max(CONTEXT))),
    )
    records = []
    for curve, loads, capacity in visits:
        print(f"{name}: {curve}", flush=True)
        for outcome in contender.visit(loads, capacity).outcomes:
            records.append(fields | {"curve": curve} | outcome)
            print(f"  {outcome['concurrency']} x {outcome['prompt_tokens']}: {outcome['output_rate']:.1f} tok/s")
    return records


def plots(records: list[dict[str, Any]]) -> dict[str, str]:
    """SVG text by file name."""
    lines: dict[str, dict[str, dict[float, float]]] = {"concurrency": {}, "context": {}, "decode": {}, "prefill": {}}
    for record in records:
        label, prompt, at_once = record["label"], record["prompt_tokens"], record["concurrency"]
        if record["curve"] == "concurrency":
            lines["concurrency"].setdefault(label, {})[at_once] = record["output_rate"]
            continue
        together = f"{label}, {at_once} at once"
        lines["context"].setdefault(together, {})[prompt + OUTPUT_TOKENS] = record["output_rate"]
        if at_once == 1:
            lines["decode"].setdefault(label, {})[prompt + OUTPUT_TOKENS] = 1000 / record["tpot_p50"]
            lines["prefill"].setdefault(label, {})[prompt] = prompt * 1000 / record["ttft_p50"]
    return {
        f"{name}.svg": line_plot(title, x_label, "tokens/s", lines[name])
        for name, title, x_label in (
            ("concurrency", "Output, 128 prompt + 64 output tokens", "sequences at once"),
            ("context", "Output, the prompt's time included", "context: prompt + 64 output tokens"),
            ("decode", "Decoding one sequence, after its first token", "context (tokens)"),
            ("prefill", "Prefill of one prompt, until the first token", "prompt (tokens)"),
        )
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), default=["headrace", "llama.cpp"])
    parser.add_argument("--out", type=Path, default=HERE / "results" / "curves.json")
    parser.add_argument("--plots", type=Path, default=HERE / "plots")
    args = parser.parse_args()
    began = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    records = [
        record for name in args.contenders if installed(CONTENDERS[name]) for record in measure(name, CONTENDERS[name])
    ]
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(json.dumps({"began": began, "machine": machine(), "records": records}, indent=1) + "\n")
    args.plots.mkdir(parents=True, exist_ok=True)
    for name, svg in plots(records).items():
        (args.plots / name).write_text(svg)


if __name__ == "__main__":
    main()
