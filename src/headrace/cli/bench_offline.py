"""`headrace bench latency` and `headrace bench throughput`: the engine in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict

from rich.console import Console
from rich.progress import Progress

from headrace.bench.errors import BenchError
from headrace.bench.offline import LatencyReport, OfflineReport, measure_latency, measure_throughput
from headrace.bench.prompts import Lengths
from headrace.bench.table import print_table
from headrace.cli.bench_files import check_folder, write_text
from headrace.cli.bench_flags import JsonFlags, LatencyFlags, ThroughputFlags
from headrace.config.engine import EngineConfig
from headrace.core.errors import CallerError, ConfigError
from headrace.llm import LLM
from headrace.runtime.environment import prepare_this_process

EXIT_INTERRUPTED = 130


def bench_latency(model: str, engine: EngineConfig, flags: LatencyFlags, result: JsonFlags) -> int:
    """Load `model`, measure, show. Raises `StartupError`."""
    check_folder("--out", result.out)
    with _misuse():
        lengths = Lengths(prompt_tokens=flags.prompt_tokens, output_tokens=flags.output_tokens)
        if min(flags.batch_size, flags.iterations, flags.warmup + 1) < 1:
            raise BenchError("--batch-size and --iterations must be at least 1, --warmup at least 0.")
        with _loaded(model, engine) as llm, _bar() as bar:
            task = bar.add_task("batches", total=flags.warmup + flags.iterations)
            report = measure_latency(
                llm,
                model,
                lengths,
                batch_size=flags.batch_size,
                iterations=flags.iterations,
                warmup=flags.warmup,
                seed=flags.seed,
                on_end=lambda: bar.advance(task),
            )
    rows = [
        ["batch size", str(report.batch_size)],
        ["batches", str(report.iterations)],
        *_rates(report),
        *([f"latency ms, {name}", f"{value:.1f}"] for name, value in _percentiles(report)),
    ]
    _show(report, result, rows)
    return EXIT_INTERRUPTED if report.interrupted else 0


def bench_throughput(model: str, engine: EngineConfig, flags: ThroughputFlags, result: JsonFlags) -> int:
    """Load `model`, measure, show. Raises `StartupError`."""
    check_folder("--out", result.out)
    with _misuse():
        lengths = Lengths(
            prompt_tokens=flags.prompt_tokens, output_tokens=flags.output_tokens, spread=flags.range_ratio
        )
        if flags.requests < 1:
            raise BenchError(f"--requests must be at least 1, got {flags.requests}.")
        with _loaded(model, engine) as llm:
            report = measure_throughput(
                llm, model, lengths, requests=flags.requests, seed=flags.seed, progress=sys.stderr.isatty()
            )
    _show(report, result, [["requests", str(report.requests)], *_rates(report)])
    return 0


@contextmanager
def _misuse() -> Iterator[None]:
    try:
        yield
    except (BenchError, CallerError) as error:  # lengths that do not fit the model are the latter
        raise ConfigError(error.message) from error


def _loaded(model: str, engine: EngineConfig) -> LLM:
    prepare_this_process()
    return LLM(model, **asdict(engine))


def _bar() -> Progress:
    return Progress(console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())


def _rates(report: OfflineReport) -> list[list[str]]:
    return [
        ["prompt tokens", str(report.prompt_tokens)],
        ["output tokens", str(report.output_tokens)],
        ["seconds", f"{report.seconds:.2f}"],
        ["requests/s", f"{report.request_rate:.2f}"],
        ["prompt tokens/s", f"{report.prompt_token_rate:.1f}"],
        ["output tokens/s", f"{report.output_token_rate:.1f}"],
        ["all tokens/s", f"{report.total_token_rate:.1f}"],
    ]


def _percentiles(report: LatencyReport) -> list[tuple[str, float]]:
    latency = report.latency
    return [("mean", latency.mean), ("p50", latency.p50), ("p90", latency.p90), ("p99", latency.p99)]


def _show(report: OfflineReport, result: JsonFlags, rows: Sequence[Sequence[str]]) -> None:
    if result.json:
        print(report.json(), end="")
    else:
        print_table([report.model, ""], rows)
    if result.out is not None:
        write_text(result.out, report.json())
