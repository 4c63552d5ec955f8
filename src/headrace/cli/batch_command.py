"""The command line of `headrace run-batch`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from headrace.cli.remote_commands import ApiKey, Url
from headrace.core.errors import ConfigError


def add_batch_command(app: App) -> None:
    app.command(_run_batch, name="run-batch")


def _run_batch(
    *serve_flags: Annotated[str, Parameter(show=False, allow_leading_hyphen=True)],
    input_file: Annotated[Path, Parameter(alias="-i", help="Requests, one a line", metavar="FILE.jsonl")],
    output_file: Annotated[Path, Parameter(alias="-o", help="Their answers, one a line", metavar="FILE.jsonl")],
    model: Annotated[
        str | None, Parameter(help="Serve this for the batch; takes the flags of serve, too", metavar="MODEL")
    ] = None,
    concurrency: Annotated[int, Parameter(help="Requests in flight [default: 128]", metavar="INT")] = 128,
    retries: Annotated[
        int, Parameter(help="Of a request that finds the server busy or failing [default: 5]", metavar="INT")
    ] = 5,
    retry_failed: Annotated[
        bool, Parameter(help="Ask again what has an error in the output file", negative="")
    ] = False,
    json: Annotated[bool, Parameter(help="Print a summary as JSON", negative="")] = False,
    url: Url = None,
    api_key: ApiKey = None,
) -> int:
    """Answer a file of requests in OpenAI's batch format.

    A line is {"custom_id": …, "method": "POST", "url": …, "body": {…}} with a
    url such as /v1/chat/completions, /v1/embeddings, /score or /rerank.
    Answers are written as they come. A line that has one in the output file is
    not asked again: after an interruption, the same command goes on.
    The exit code is 1 if a line has an error.
    """
    from headrace.cli.remote import Remote
    from headrace.cli.run_batch import Batch, run_batch_at, run_batch_with

    batch = Batch(
        input_file=input_file,
        output_file=output_file,
        concurrency=concurrency,
        retries=retries,
        retry_failed=retry_failed,
    )
    if model is None:
        if serve_flags:
            raise ConfigError(f"unexpected argument {serve_flags[0]!r}. The flags of serve need --model.")
        return run_batch_at(batch, Remote(url=url, model=None, api_key=api_key), as_json=json)
    if url is not None or api_key is not None:
        raise ConfigError("--model starts a server; --url and --api-key are for one that runs.")
    return run_batch_with(batch, model, serve_flags, as_json=json)
