"""Write RESULTS.md from what compare.py, quality.py, curves.py and api_path.py left in results/.

    python benchmarks/report.py

No figure is made here: medians over the rounds, ratios of figures from the same round, and whether they reach the bars
that were set. What has not been measured has no section.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent

Record = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Bar:
    """One line of the goals. `measured`: None where a figure it needs is missing."""

    what: str
    measured: float | None
    bar: float
    stretch: float
    show: Callable[[float], str]
    at_most: bool = False

    def row(self) -> list[str]:
        if self.measured is None:
            return [self.what, "not measured", self.show(self.bar), self.show(self.stretch), ""]
        reached = "stretch" if self._within(self.stretch) else "bar" if self._within(self.bar) else "missed"
        return [self.what, self.show(self.measured), self.show(self.bar), self.show(self.stretch), reached]

    def _within(self, limit: float) -> bool:
        assert self.measured is not None
        return self.measured <= limit if self.at_most else self.measured >= limit


class Comparison:
    """The records of one run of compare.py, by what they say."""

    def __init__(self, results: dict[str, Any]) -> None:
        self.results = results
        self._records: list[Record] = results["records"]

    def contenders(self) -> dict[str, str]:
        """Labels by name, in the order they were measured."""
        return {record["contender"]: record["label"] for record in self._records if "contender" in record}

    def values(self, field: str, **where: Any) -> dict[int, float]:
        """`field` of the records that have these values, by round: the median where a round has several."""
        rounds: dict[int, list[float]] = {}
        for record in self._records:
            if all(record.get(name) == value for name, value in where.items()):
                rounds.setdefault(record["round"], []).append(record[field])
        return {number: statistics.median(values) for number, values in rounds.items()}

    def median(self, field: str, **where: Any) -> float | None:
        values = self.values(field, **where)
        return statistics.median(values.values()) if values else None

    def ratio(self, field: str, against: str, **where: Any) -> float | None:
        """Headrace's figure over that of `against` in the same round, the median over rounds."""
        ours = self.values(field, contender="headrace", **where)
        theirs = self.values(field, contender=against, **where)
        ratios = [ours[number] / theirs[number] for number in ours.keys() & theirs.keys()]
        return statistics.median(ratios) if ratios else None

    def bandwidth_share(self, temperature: float | None) -> float | None:
        """Bytes of weights that decoding one sequence reads a second, over what the memory gives in the same round."""
        where = {"measure": "speed", "contender": "headrace", "concurrency": 1, "temperature": temperature}
        times, bandwidths = self.values("tpot_p50", **where), self.values("bytes_per_second", measure="bandwidth")
        weights = self.results["weight_bytes"]
        shares = [
            weights * 1000 / milliseconds / bandwidths[number]
            for number, milliseconds in times.items()
            if number in bandwidths
        ]
        return statistics.median(shares) if shares else None


def times(value: float) -> str:
    return f"{value:.2f} ×"


def gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f} GB"


def seconds(value: float) -> str:
    return f"{value:.1f} s"


def percent(value: float) -> str:
    return f"{value:.1%}"


def bars(run: Comparison) -> list[Bar]:
    speed = {"measure": "speed", "temperature": None}
    goals = [
        ("llama.cpp's server, Q4_0", "llama.cpp", {1: (1.2, 1.5), 8: (2, 3), 32: (3, 4.5)}),
        ("vLLM's CPU build", "vllm", {1: (5, 7), 8: (3, 4.5), 32: (3, 4.5)}),
        ("OpenVINO GenAI int8, in-process", "openvino", {8: (1.3, 2), 32: (1.5, 2.5)}),
    ]
    found = []
    for label, name, levels in goals:
        for concurrency, (bar, stretch) in levels.items():
            ratio = run.ratio("output_rate", name, concurrency=concurrency, **speed)
            found.append(Bar(f"against {label}, concurrency {concurrency}", ratio, bar, stretch, times))
    for tokens in run_prefill_lengths(run):
        ratio = run.ratio("prompt_rate", "llama.cpp", measure="prefill", prompt_tokens=tokens)
        found.append(Bar(f"prefill of {tokens} tokens against llama.cpp Q4_0", ratio, 2, 3, times))
    ready = run.median("seconds", measure="ready", contender="headrace")
    found.append(Bar("process start to the first 200 of `/health`", ready, 5, 3, seconds, at_most=True))
    memory = run.median("memory", measure="fill", contender="headrace")
    found.append(Bar("memory (PSS), 8k tokens of KV written", memory, 0.7e9, 0.5e9, gigabytes, at_most=True))
    share = run.bandwidth_share(None)
    found.append(Bar("share of the memory's bandwidth, one sequence", share, 0.6, 0.8, percent))
    return found


def run_prefill_lengths(run: Comparison) -> list[int]:
    return sorted({record["prompt_tokens"] for record in run.results["records"] if record["measure"] == "prefill"})


def comparison_section(run: Comparison) -> list[str]:
    rounds = 1 + max(record["round"] for record in run.results["records"])
    machine = run.results["machine"]
    bandwidth = run.median("bytes_per_second", measure="bandwidth")
    lines = [
        f"{run.results['began']}, {machine['cpu']}, {machine['processors']} processors "
        f"({', '.join(machine['flags'])}), {machine['memory'] / 1e9:.0f} GB; "
        f"memory is read at {(bandwidth or 0) / 1e9:.1f} GB/s. Medians of {rounds} rounds; ratios are taken within "
        "a round. The machine is shared: only the ratios mean anything.",
        "",
        "```sh",
        run.results["command"],
        "```",
        "",
        "## Goals",
        "",
        *table(["", "measured", "bar", "stretch", "reached"], [bar.row() for bar in bars(run)]),
        "",
        "## Side by side",
        "",
        "128 prompt and 64 output tokens over HTTP (OpenVINO: in-process). Without a temperature in the request, each "
        "server's own default; 0 is greedy. Times are medians over requests.",
        "",
    ]
    for temperature, heading in ((None, "No temperature sent"), (0.0, "Temperature 0")):
        lines += [f"### {heading}", "", *speed_table(run, temperature), ""]
    lines += ["### Start, memory, prefill", "", *start_table(run)]
    return lines


def speed_table(run: Comparison, temperature: float | None) -> list[str]:
    where = {"measure": "speed", "temperature": temperature}
    levels = sorted({record["concurrency"] for record in run.results["records"] if record["measure"] == "speed"})
    at = " / ".join(map(str, levels))
    rows = []
    for name, label in run.contenders().items():

        def cells(field: str, digits: int, name: str = name) -> str:
            found = (run.median(field, contender=name, concurrency=level, **where) for level in levels)
            return " / ".join("" if value is None else f"{value:.{digits}f}" for value in found)

        ratios = [run.ratio("output_rate", name, concurrency=level, **where) for level in levels]
        faster = "" if name == "headrace" else " / ".join(times(ratio) if ratio else "" for ratio in ratios)
        rows.append([label, cells("output_rate", 1), faster, cells("ttft_p50", 0), cells("tpot_p50", 1)])
    return table([f"at {at}", "output tok/s", "Headrace over it", "ms to first token", "ms per token after"], rows)


def start_table(run: Comparison) -> list[str]:
    lengths = run_prefill_lengths(run)
    rows = []
    for name, label in run.contenders().items():
        ready = run.median("seconds", measure="ready", contender=name)
        loaded = run.median("memory", measure="speed", contender=name)
        filled = run.median("memory", measure="fill", contender=name)
        prefill = [
            run.median("prompt_rate", measure="prefill", contender=name, prompt_tokens=tokens) for tokens in lengths
        ]
        rows.append(
            [
                label,
                shown(ready, seconds),
                shown(loaded, gigabytes),
                shown(filled, gigabytes),
                *(shown(rate, lambda value: f"{value:.0f}") for rate in prefill),
            ]
        )
    prefill_heads = [f"prefill tok/s, {tokens} tokens" for tokens in lengths]
    return table(["", "ready after", "PSS under load", "PSS, 8k tokens of KV", *prefill_heads], rows)


def quality_section(quality: dict[str, Any]) -> list[str]:
    rows = [
        [
            row["candidate"],
            f"{row['mean_kl']:.5f}",
            f"{row['top1_agreement']:.1%}",
            f"{row['max_logit_difference']:.2g}",
        ]
        for row in quality["rows"]
    ]
    return [
        "## Quality",
        "",
        f"`{quality['text']}`, {quality['tokens']} tokens in sequences of {quality['window']}, teacher forced, against "
        "the reference kernels on exactly dequantised float32 weights. Goals: mean KL at most 0.005, the same most "
        "likely token at 95.5 % of positions or more, not above llama.cpp's KL on the same file; float32 within 1e-3.",
        "",
        *table(["", "mean KL (nats)", "same top token", "largest difference of a logit"], rows),
    ]


def curves_section(curves: dict[str, Any]) -> list[str]:
    records: list[Record] = curves["records"]
    labels = list(dict.fromkeys(record["label"] for record in records))

    def pivot(head: str, key: str, field: str, digits: int, **where: Any) -> list[str]:
        chosen = [record for record in records if all(record[name] == value for name, value in where.items())]
        cells = {(record[key], record["label"]): record[field] for record in chosen}
        rows = [
            [str(at), *(shown(cells.get((at, label)), lambda value: f"{value:.{digits}f}") for label in labels)]
            for at in sorted({record[key] for record in chosen})
        ]
        return table([head, *labels], rows)

    return [
        "## How cost grows",
        "",
        f"{curves['began']}. Output tokens a second, 128 prompt and 64 output tokens:",
        "",
        *pivot("sequences at once", "concurrency", "output_rate", 1, curve="concurrency"),
        "",
        "![Throughput against concurrency](plots/concurrency.svg)",
        "",
        "Against context. Milliseconds per token of one sequence, after its first:",
        "",
        *pivot("prompt tokens", "prompt_tokens", "tpot_p50", 1, curve="context", concurrency=1),
        "",
        "Milliseconds to the first token of one sequence:",
        "",
        *pivot("prompt tokens", "prompt_tokens", "ttft_p50", 0, curve="context", concurrency=1),
        "",
        "Output tokens a second of four sequences at once, their prompts' time included:",
        "",
        *pivot("prompt tokens", "prompt_tokens", "output_rate", 1, curve="context", concurrency=4),
        "",
        "![Throughput against context](plots/context.svg)",
        "![Decoding against context](plots/decode.svg)",
        "![Prefill against prompt length](plots/prefill.svg)",
    ]


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(cells)} |" for cells in (head, ["---"] * len(head), *rows)]


def shown(value: float | None, show: Callable[[float], str]) -> str:
    return "" if value is None else show(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--out", type=Path, default=HERE / "RESULTS.md")
    args = parser.parse_args()
    lines = [
        "# Results",
        "",
        "SmolLM2-135M-Instruct. Written by `benchmarks/report.py`; how to repeat it: README.md.",
        "",
    ]
    for name, section in (
        ("compare", lambda results: comparison_section(Comparison(results))),
        ("quality", quality_section),
        ("curves", curves_section),
    ):
        path = args.results / f"{name}.json"
        if path.exists():
            lines += [*section(json.loads(path.read_text())), ""]
    if (api_path := args.results / "api_path.md").exists():
        lines += ["## The API path alone", "", api_path.read_text().strip(), ""]
    args.out.write_text("\n".join(lines))


if __name__ == "__main__":
    main()
