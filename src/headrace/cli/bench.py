"""The command lines of `headrace bench`. What they do is imported when they do it."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from dataclasses import fields
from typing import Annotated, Any

from cyclopts import App, Parameter

from headrace.cli.bench_flags import (
    JsonFlags,
    LatencyFlags,
    LoadFlags,
    PromptFlags,
    ResultFlags,
    ServerFlags,
    ThroughputFlags,
)
from headrace.config.command_line import knob_parameters, plain_app
from headrace.config.engine import EngineConfig
from headrace.config.load import config_of

Model = Annotated[str, Parameter(help="A known name, folder, .gguf file or Hub id [default: smollm2]", metavar="MODEL")]

_SERVER, _LOAD, _PROMPTS, _RESULT = ServerFlags(), LoadFlags(), PromptFlags(), ResultFlags()
_LATENCY, _THROUGHPUT, _JSON = LatencyFlags(), ThroughputFlags(), JsonFlags()


def bench_app() -> App:
    """The command with its subcommands. Each returns an exit code."""
    app = plain_app(name="bench", help="Measure a server, or the engine without one.", version_flags=())
    app.command(_serve, name="serve")
    app.command(_with_engine_flags(_latency), name="latency")
    app.command(_with_engine_flags(_throughput), name="throughput")
    return app


def _serve(
    *,
    server: ServerFlags = _SERVER,
    load: LoadFlags = _LOAD,
    prompts: PromptFlags = _PROMPTS,
    result: ResultFlags = _RESULT,
) -> int:
    """Put load on a running server, and say what its users would see."""
    from headrace.cli.bench_serve import bench_serve

    return bench_serve(server, load, prompts, result)


def _latency(
    model: Model = "smollm2", *, flags: LatencyFlags = _LATENCY, result: JsonFlags = _JSON, **words: Any
) -> int:
    """Run one batch after the other in this process, and say how long they take."""
    engine = _engine_of(words)
    from headrace.cli.bench_offline import bench_latency

    return bench_latency(model, engine, flags, result)


def _throughput(
    model: Model = "smollm2", *, flags: ThroughputFlags = _THROUGHPUT, result: JsonFlags = _JSON, **words: Any
) -> int:
    """Run many requests at once in this process, and say how much gets through."""
    engine = _engine_of(words)
    from headrace.cli.bench_offline import bench_throughput

    return bench_throughput(model, engine, flags, result)


def _with_engine_flags(command: Callable[..., int]) -> Callable[..., int]:
    """`command`, whose `words` are the flags of the engine, as `headrace serve` has them."""

    def run(*arguments: Any, **named: Any) -> int:
        return command(*arguments, **named)

    own = [known for known in inspect.signature(command, eval_str=True).parameters.values() if known.name != "words"]
    names = [field.name for field in fields(EngineConfig)]
    run.__signature__ = inspect.Signature([*own, *knob_parameters(names)])  # type: ignore[attr-defined]
    run.__annotations__ = {}
    run.__doc__ = command.__doc__
    return run


def _engine_of(words: dict[str, Any]) -> EngineConfig:
    """Raises `ConfigError`."""
    return config_of({name: value for name, value in words.items() if value is not None}, os.environ).engine
