"""`headrace jobs`: look at and steer the jobs of a running server, over its URL."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from headrace.config.command_line import plain_app

if TYPE_CHECKING:
    from headrace.client import Job, Jobs

_MISSING = "headrace jobs list shows what there is. A job is visible to the key that sent it, and to no other."


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Which server's jobs."""

    url: Annotated[str | None, Parameter(show_default=False)] = None
    """Where the server is [also HEADRACE_BASE_URL]"""
    endpoint: str = "default"
    """The endpoint, such as a model's name with / written as -- [default: default]"""
    api_key: Annotated[str | None, Parameter(show_default=False)] = None
    """The key that the jobs were sent with [also HEADRACE_API_KEY, then OPENAI_API_KEY]"""

    @contextmanager
    def jobs(self) -> Iterator[Jobs]:
        """Its jobs. Raises `RemoteFailed` for what a client raises."""
        from headrace.cli.remote import Remote

        with Remote(url=self.url, model=None, api_key=self.api_key).connection(not_found=_MISSING) as client:
            yield client.jobs.at(self.endpoint)


_HERE = Server()


def jobs_app() -> App:
    """The command with its subcommands. Each returns an exit code."""
    app = plain_app(name="jobs", help="Look at and steer the jobs of a running server.", version_flags=())
    for name, action in (
        ("list", _list),
        ("show", _show),
        ("cancel", _cancel),
        ("retry", _retry),
        ("purge", _purge),
        ("follow", _follow),
    ):
        app.command(action, name=name)
    return app


def _list(*, status: str | None = None, limit: int = 20, server: Server = _HERE) -> int:
    """List jobs, the newest first.

    Parameters
    ----------
    status
        Only jobs in this state, such as IN_QUEUE.
    limit
        Most jobs to list [default: 20]
    """
    with server.jobs() as jobs:
        for job in jobs.list(status=status, limit=limit):
            print(f"{job.id:<46}{job.status:<12}{_times(job):<24}{job.error or ''}".rstrip())
    return 0


def _show(job_id: str, /, *, server: Server = _HERE) -> int:
    """Show a job, with its output if it is complete."""
    import msgspec

    with server.jobs() as jobs:
        print(msgspec.json.format(msgspec.json.encode(jobs.status(job_id))).decode())
    return 0


def _cancel(job_id: str, /, *job_ids: str, server: Server = _HERE) -> int:
    """End jobs, whether they wait or run."""
    with server.jobs() as jobs:
        for each in (job_id, *job_ids):
            print(f"{each} {jobs.cancel(each).status}", flush=True)
    return 0


def _retry(job_id: str, /, *job_ids: str, server: Server = _HERE) -> int:
    """Queue jobs again that failed or timed out."""
    with server.jobs() as jobs:
        for each in (job_id, *job_ids):
            print(f"{each} {jobs.retry(each).status}", flush=True)
    return 0


def _purge(*, server: Server = _HERE) -> int:
    """Cancel all jobs that wait."""
    with server.jobs() as jobs:
        print(f"{jobs.purge()} jobs were cancelled")
    return 0


def _follow(job_id: str, /, *, server: Server = _HERE) -> int:
    """Print a job's output as it comes, from the beginning; other readers of its stream miss nothing.

    Text is printed as text, anything else as a line of JSON. The exit code is 0 if the job completes.
    """
    from headrace.cli.remote import shown

    terminal = sys.stdout.isatty()
    with server.jobs() as jobs, jobs.stream(job_id) as chunks:
        for chunk in chunks:
            text = _text(chunk)
            print(shown(text) if terminal else text, end="", flush=True)
    print()
    return 0


def _text(output: Any) -> str:
    """The first choice's tokens of a native chunk, frames as they are, a line of JSON of anything else."""
    match output:
        case {"choices": [{"tokens": list(tokens)}, *_]}:
            return "".join(tokens)
        case str(frames):
            return frames
        case _:
            return json.dumps(output, ensure_ascii=False) + "\n"


def _times(job: Job) -> str:
    parts = [] if job.delay_time is None else [f"waited {job.delay_time / 1000:.1f} s"]
    return ", ".join(parts if job.execution_time is None else [*parts, f"ran {job.execution_time / 1000:.1f} s"])
