"""Reports as tables for the terminal, which are Markdown as well. A column is a level of load."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from headrace.bench.report import Distribution, LevelReport, ServeReport

_PERCENTILES = ("p50", "p90", "p99")

_TIMES: tuple[tuple[str, Callable[[LevelReport], Distribution | None]], ...] = (
    ("TTFT", lambda level: level.ttft),
    ("TPOT", lambda level: level.tpot),
    ("ITL", lambda level: level.itl),
    ("E2EL", lambda level: level.e2el),
    ("lateness", lambda level: level.lateness),
)

ASSUMED = "assumed"
"""The `lengths` of a data set where no tokenizer could be asked."""

_BUSY = 0.9
"""Share of one processor above which the load generator may be what limits the figures."""


def print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """To standard output. The first column is text, the others are numbers."""
    lines = [headings, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    for first, *others in (headings, rule, *lines[1:]):
        print("| " + " | ".join([first.ljust(widths[0]), *map(str.rjust, others, widths[1:])]) + " |")


def print_serve_report(report: ServeReport) -> None:
    levels = report.levels
    print(f"{report.model} at {report.url}, {report.endpoint}: {describe_dataset(report)}")
    rows = [*_counts(levels), *_rates(levels), *_times(levels), *_client(levels)]
    heading = "requests a second" if any(level.rate is not None for level in levels) else "concurrency"
    print_table([heading, *(level.level.removesuffix("/s") for level in levels)], rows)
    for note in notes(report):
        print("".join(char if char.isprintable() else "\ufffd" for char in note))  # servers may say anything


def describe_dataset(report: ServeReport) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in report.dataset.items() if value is not None)


def notes(report: ServeReport) -> list[str]:
    """What a reader must know to take the figures for what they are."""
    found = []
    if report.interrupted:
        found.append("Interrupted: what was measured until then.")
    for level in report.levels:
        found += [
            f"{level.level}: {error.count} failed ({kind}), the first: {error.example}"
            for kind, error in level.errors.items()
        ]
        if level.unexpected_output_lengths:
            found.append(f"{level.level}: {level.unexpected_output_lengths} answers had another length than asked for.")
        if level.unexpected_prompt_lengths:
            found.append(f"{level.level}: the server counted {level.unexpected_prompt_lengths} prompts differently.")
        for counted_by, requests in level.output_tokens_counted_by.items():
            if counted_by != "usage":
                found.append(f"{level.level}: tokens of {requests} answers are counted by {counted_by}, not by usage.")
        if level.client_cpu_seconds > _BUSY * level.seconds:
            found.append(f"{level.level}: the load generator took a whole processor, and may have set the limit.")
    if report.dataset.get("lengths") == ASSUMED:
        found.append("The server has no /tokenize: a word of a prompt is assumed to be one token.")
    return found


def _counts(levels: Sequence[LevelReport]) -> list[list[str]]:
    rows = [["requests completed", *(str(level.completed) for level in levels)]]
    if any(level.failed for level in levels):
        rows.append(["requests failed", *(str(level.failed) for level in levels)])
    if any(level.cancelled for level in levels):
        rows.append(["requests cancelled", *(str(level.cancelled) for level in levels)])
    rows.append(["seconds", *(f"{level.seconds:.2f}" for level in levels)])
    return rows


def _rates(levels: Sequence[LevelReport]) -> list[list[str]]:
    rows = [
        ["requests/s", *(f"{level.request_rate:.2f}" for level in levels)],
        ["prompt tokens/s", *(f"{level.prompt_token_rate:.1f}" for level in levels)],
    ]
    if any(level.output_tokens for level in levels):
        rows.append(["output tokens/s", *(f"{level.output_token_rate:.1f}" for level in levels)])
    if any(level.goodput is not None for level in levels):
        rates = [0.0 if level.goodput is None else level.goodput.rate for level in levels]
        rows.append(["goodput, requests/s", *(f"{rate:.2f}" for rate in rates)])
    return rows


def _times(levels: Sequence[LevelReport]) -> list[list[str]]:
    rows = []
    for name, of in _TIMES:
        measured = [of(level) for level in levels]
        if any(times is not None for times in measured):
            for percentile in _PERCENTILES:
                rows.append([f"{name} ms, {percentile}", *(_value(times, percentile) for times in measured)])
    return rows


def _value(times: Distribution | None, percentile: str) -> str:
    if times is None:
        return ""
    values = {"p50": times.p50, "p90": times.p90, "p99": times.p99}
    return f"{values[percentile]:.1f}"


def _client(levels: Sequence[LevelReport]) -> list[list[str]]:
    return [["client CPU", *(f"{level.client_cpu_seconds / max(level.seconds, 1e-9):.0%}" for level in levels)]]
