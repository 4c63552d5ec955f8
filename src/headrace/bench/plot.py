"""Latency and throughput of a sweep against its load, as one SVG.

Three line plots are no reason for a plotting library: matplotlib takes a second to import and more space than the
server's other dependencies together. SVG is text, and sharp at any size.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.bench.errors import BenchError
from headrace.bench.report import Distribution, LevelReport, ServeReport
from headrace.bench.svg import Line, Plot, line_plots

Placed = Sequence[tuple[float, LevelReport]]
"""Levels, and where they stand on the x axis."""

_PERCENTILES: tuple[tuple[str, Callable[[Distribution], float]], ...] = (
    ("p50", lambda times: times.p50),
    ("p90", lambda times: times.p90),
    ("p99", lambda times: times.p99),
)


def plot_of(report: ServeReport) -> str:
    """SVG text. Raises `BenchError` if there is nothing to be plotted."""
    placed = [(x, level) for level in report.levels if level.completed and (x := _x_of(level)) is not None]
    if not placed:
        raise BenchError("There is nothing to plot: no request was answered at a level that has a number.")
    by_rate = any(level.rate is not None for _, level in placed)
    x_label = "requests offered a second" if by_rate else "requests at a time"
    plots = [
        _latency(f"{report.model}: time to first token", x_label, placed, lambda level: level.ttft),
        _latency("Time per token after the first", x_label, placed, lambda level: level.tpot),
        _latency("Time to the end of the answer", x_label, placed, lambda level: level.e2el),
        Plot("Throughput", x_label, "tokens/s", _throughput(placed)),
    ]
    return line_plots([plot for plot in plots if plot.lines])


def _x_of(level: LevelReport) -> float | None:
    """A ramp stands at its end; requests that came all at once stand nowhere."""
    return level.concurrency if level.rate is None else level.rate.last


def _latency(title: str, x_label: str, placed: Placed, of: Callable[[LevelReport], Distribution | None]) -> Plot:
    measured = [(x, times) for x, level in placed if (times := of(level)) is not None]
    lines = {name: {x: pick(times) for x, times in measured} for name, pick in _PERCENTILES}
    return Plot(title, x_label, "ms", lines if measured else {})


def _throughput(placed: Placed) -> dict[str, Line]:
    lines = {
        "output": {x: level.output_token_rate for x, level in placed},
        "prompt": {x: level.prompt_token_rate for x, level in placed},
    }
    return {name: line for name, line in lines.items() if any(line.values())}
