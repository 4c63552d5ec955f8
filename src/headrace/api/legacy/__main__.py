"""`python -m headrace.api.legacy --model M --host H --port P …`: the demo API alone, with the flags of `serve`."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from headrace.cli.front import DEMO_API
from headrace.cli.main import exit_code_of
from headrace.config.command_line import Words, serve_app
from headrace.config.load import config_of

USAGE = "Usage: python -m headrace.api.legacy [MODEL] [FLAGS]"


def main(arguments: Sequence[str] | None = None) -> int:
    """Serve until SIGINT or SIGTERM, and return the exit code."""
    started = time.monotonic()

    def serve(words: Words) -> int:
        config = config_of(words, os.environ)
        from headrace.cli.serve import serve_until_stopped

        return serve_until_stopped(config, started, DEMO_API)

    command = serve_app(serve, usage=USAGE)
    return exit_code_of(lambda: command(sys.argv[1:] if arguments is None else arguments) or 0)


if __name__ == "__main__":
    sys.exit(main())
