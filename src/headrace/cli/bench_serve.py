"""`headrace bench serve`: from its flags to a sweep, and from what was measured to the terminal."""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.bench.arrivals import Rate
from headrace.bench.endpoints import Asking, Endpoint
from headrace.bench.errors import BenchError
from headrace.bench.files import file_prompts
from headrace.bench.plot import plot_of
from headrace.bench.progress import SweepBar
from headrace.bench.prompts import Lengths, Prompt, random_prompts, shared_prefix_prompts
from headrace.bench.report import Limits, ServeReport
from headrace.bench.sweep import Level, Sweep
from headrace.bench.table import ASSUMED, print_serve_report
from headrace.bench.target import served_model, server_tokenizer
from headrace.bench.words import Tokenizer, all_words, one_token_words
from headrace.cli.bench_files import check_folder, write_text
from headrace.cli.bench_flags import LoadFlags, PromptFlags, ResultFlags, ServerFlags
from headrace.cli.remote import explained
from headrace.client.settings import Settings
from headrace.core.errors import ConfigError

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130

_CONCURRENCY = (1, 8, 32)
_OUTPUT_TOKENS = 64

Described = dict[str, str | int | float | bool | None]


def bench_serve(server: ServerFlags, load: LoadFlags, prompts: PromptFlags, result: ResultFlags) -> int:
    """Measure, and show. The exit code is 0 if every level had an answer.

    Raises `ConfigError` for flags that make no sense, and `StartupError` for a server that is not there or refuses.
    """
    try:
        return _bench_serve(server, load, prompts, result)
    except BenchError as error:
        raise ConfigError(error.message) from error


def _bench_serve(server: ServerFlags, load: LoadFlags, prompts: PromptFlags, result: ResultFlags) -> int:
    try:
        settings = Settings.of(server.url, server.api_key, None, None)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    levels, limits, extra = levels_of(load), limits_of(result.goodput), extra_of(prompts)
    _check_files(result)
    if not (math.isfinite(server.timeout) and server.timeout > 0):
        raise ConfigError(f"--timeout must be above 0 seconds, got {server.timeout:g}.")
    if load.warmup < 0:
        raise ConfigError(f"--warmup must be at least 0, got {load.warmup}.")
    with explained(settings.base_url), contextlib.ExitStack() as resources:
        endpoint = Endpoint(server.endpoint)
        model = server.model or served_model(settings, endpoint)
        tokenizer = _tokenizer(settings, model, prompts.tokenizer, resources)
        source, dataset = prompts_of(prompts, endpoint, tokenizer)
        sweep = Sweep(
            settings=settings,
            asking=Asking(endpoint=endpoint, model=model, ignore_eos=prompts.ignore_eos, extra=extra),
            prompts=source,
            dataset=dataset,
            levels=levels,
            seed=prompts.seed,
            warmup_requests=load.warmup,
            timeout=server.timeout,
            limits=limits,
            tokenizer=tokenizer,
        )
        bar = resources.enter_context(SweepBar()) if sys.stderr.isatty() else None
        report = sweep.run(bar)
    _show(report, result)
    if report.interrupted:
        return EXIT_INTERRUPTED
    return 0 if all(level.completed for level in report.levels) else EXIT_FAILED


def levels_of(load: LoadFlags) -> list[Level]:
    """A closed loop at each concurrency, or an open one at each rate. Raises `ConfigError` and `BenchError`."""
    if not load.rate:
        return [Level(concurrency=level, requests=load.requests) for level in load.concurrency or _CONCURRENCY]
    if len(load.concurrency) > 1:
        raise ConfigError("--rate takes one --concurrency: the most that may run at a time.")
    most = load.concurrency[0] if load.concurrency else None
    return [Level(rate=_rate(text, load), concurrency=most, requests=load.requests) for text in load.rate]


def _rate(text: str, load: LoadFlags) -> Rate:
    first, ramp, last = text.partition("..")
    try:
        start, end = float(first), float(last) if ramp else float(first)
    except ValueError:
        raise ConfigError(f"--rate must be a number, a ramp such as 1..16, or inf, got {text!r}.") from None
    return Rate(first=start, last=end, growth=load.ramp, burstiness=load.burstiness)


def limits_of(goodput: tuple[str, ...]) -> Limits:
    """Raises `ConfigError` and `BenchError`."""
    limits = {}
    for text in goodput:
        name, _, limit = text.partition(":")
        try:
            limits[name] = float(limit)
        except ValueError:
            raise ConfigError(f"--goodput must be NAME:MILLISECONDS, such as ttft:500, got {text!r}.") from None
    return Limits(limits)


def extra_of(prompts: PromptFlags) -> dict[str, Any]:
    """What every body gets. Raises `ConfigError`."""
    if prompts.temperature is not None and not math.isfinite(prompts.temperature):
        raise ConfigError(f"--temperature must be a finite number, got {prompts.temperature}.")
    extra = {} if prompts.temperature is None else {"temperature": prompts.temperature}
    if prompts.extra_body is None:
        return extra
    try:
        return extra | msgspec.json.decode(prompts.extra_body, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise ConfigError(f"--extra-body must be a JSON object, got {prompts.extra_body!r} ({error}).") from None


def prompts_of(
    flags: PromptFlags, endpoint: Endpoint, tokenizer: Tokenizer | None
) -> tuple[Iterator[Prompt], Described]:
    """Prompts without end, and what the report says of them. Raises `ConfigError` and `BenchError`."""
    dataset = flags.dataset or ("random" if flags.file is None else "file")
    if (dataset == "file") != (flags.file is not None):
        raise ConfigError("--dataset file and --file PATH belong together.")
    if flags.file is not None:
        source = file_prompts(
            flags.file, output_tokens=flags.output_tokens, default=_OUTPUT_TOKENS, tokenizer=tokenizer
        )
        return source, {"name": "file", "path": str(flags.file), "output_tokens": flags.output_tokens}
    output_tokens = flags.output_tokens or _OUTPUT_TOKENS
    lengths = Lengths(prompt_tokens=flags.prompt_tokens, output_tokens=output_tokens, spread=flags.range_ratio)
    words = all_words() if tokenizer is None else one_token_words(tokenizer)
    as_ids = _as_ids(flags, endpoint, tokenizer)
    described: Described = {
        "name": dataset,
        "prompt_tokens": flags.prompt_tokens,
        "output_tokens": None if endpoint is Endpoint.EMBEDDINGS else output_tokens,
        "range_ratio": flags.range_ratio,
        "form": "ids" if as_ids else "text",
        "lengths": ASSUMED if tokenizer is None else "exact",
    }
    if dataset == "random":
        return random_prompts(words, lengths, as_ids=as_ids, seed=flags.seed), described
    source = shared_prefix_prompts(
        words, lengths, prefixes=flags.prefixes, prefix_tokens=flags.prefix_tokens, as_ids=as_ids, seed=flags.seed
    )
    return source, described | {"prefixes": flags.prefixes, "prefix_tokens": flags.prefix_tokens}


def _as_ids(flags: PromptFlags, endpoint: Endpoint, tokenizer: Tokenizer | None) -> bool:
    if flags.form == "auto":
        return endpoint is Endpoint.COMPLETIONS and tokenizer is not None
    return flags.form == "ids"


def _tokenizer(settings: Settings, model: str, name: str | None, resources: contextlib.ExitStack) -> Tokenizer | None:
    if name is None:
        tokenizer = server_tokenizer(settings, model)
        return tokenizer and resources.enter_context(contextlib.closing(tokenizer))
    from headrace.hub import open_checkpoint
    from headrace.text import Tokenizer as LocalTokenizer

    return LocalTokenizer.load(open_checkpoint(name))


def _check_files(result: ResultFlags) -> None:
    """Raises `ConfigError`."""
    if result.plot is not None and result.plot.suffix != ".svg":
        raise ConfigError(f"--plot draws SVG: name a file that ends in .svg, got {str(result.plot)!r}.")
    check_folder("--out", result.out)
    check_folder("--plot", result.plot)


def _show(report: ServeReport, result: ResultFlags) -> None:
    if result.json:
        print(report.json(), end="")
    else:
        print_serve_report(report)
    if result.out is not None:
        write_text(result.out, report.json())
    if result.plot is not None:
        write_text(result.plot, plot_of(report))
