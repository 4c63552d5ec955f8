"""The `headrace` command. Everything heavy is imported by the command that needs it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Sequence
from typing import Annotated

from cyclopts import App, Parameter
from cyclopts.exceptions import CycloptsError

from headrace import __version__
from headrace.cli.batch_command import add_batch_command
from headrace.cli.bench import bench_app
from headrace.cli.completion import add_completion_command
from headrace.cli.jobs import jobs_app
from headrace.cli.remote_commands import ApiKey, add_remote_commands
from headrace.config.command_line import Words, explain, plain_app, serve_app
from headrace.config.load import config_of
from headrace.core.errors import ConfigError, StartupError

EXIT_FAILED = 1
EXIT_MISUSED = 2
EXIT_INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    started = time.monotonic()
    return exit_code_of(lambda: _commands(started)(sys.argv[1:] if arguments is None else arguments) or 0)


def exit_code_of(command: Callable[[], int]) -> int:
    """The exit code of `command`. Errors that are the user's to fix are shown without a traceback."""
    try:
        return command()
    except CycloptsError as problem:
        return _fail(explain(problem), EXIT_MISUSED)
    except ConfigError as problem:
        return _fail(problem, EXIT_MISUSED)
    except StartupError as problem:
        return _fail(problem, EXIT_FAILED)
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED


def _commands(started: float) -> App:
    app = plain_app(
        name="headrace",
        version=__version__,
        help="Serve language models.",
        usage="Usage: headrace COMMAND [ARGUMENTS]",
    )

    def serve(words: Words) -> int:
        config = config_of(words, os.environ)
        from headrace.cli.serve import serve_until_stopped

        return serve_until_stopped(config, started)

    app.command(serve_app(serve))
    app.command(_pull, name="pull")
    app.command(_models, name="models")
    app.command(jobs_app())
    app.command(bench_app())
    add_remote_commands(app)
    add_batch_command(app)
    app.command(_doctor, name="doctor")
    add_completion_command(app)
    return app


def _pull(name: str, /, *names: str) -> int:
    """Fetch models, by known name or Hub id, into the model cache."""
    from headrace.cli.models import pull_models

    return pull_models([name, *names])


def _models(
    *,
    json: Annotated[bool, Parameter(help="Print the list as JSON", negative="")] = False,
    url: Annotated[str | None, Parameter(help="List what this server serves instead", metavar="URL")] = None,
    api_key: ApiKey = None,
) -> int:
    """List the known models and what is here of them, or what a server serves."""
    from headrace.cli.models import show_models, show_served

    return show_models(as_json=json) if url is None else show_served(url, api_key, as_json=json)


def _doctor(*, json: Annotated[bool, Parameter(help="Print the findings as JSON", negative="")] = False) -> int:
    """Say what this machine is, what is installed, and what to do next."""
    from headrace.cli.doctor import doctor

    return doctor(as_json=json)


def _fail(problem: StartupError, code: int) -> int:
    print(f"headrace: {problem.message}", file=sys.stderr)
    return code
