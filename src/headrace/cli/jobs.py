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
from headrace.core.errors import StartupError

if TYPE_CHECKING:
    import httpx

_SECONDS = 30.0
_TERMINAL = frozenset({"COMPLETED", "FAILED", "CANCELLED", "TIMED_OUT"})


class CallFailed(StartupError):
    """The server cannot be reached, or refused. Shown on the terminal without a traceback."""


@Parameter(name="*")
@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Which server's jobs."""

    url: Annotated[str, Parameter(env_var="HEADRACE_BASE_URL")] = "http://127.0.0.1:8000"
    """Where the server listens [default: http://127.0.0.1:8000; also HEADRACE_BASE_URL]"""
    endpoint: str = "default"
    """The endpoint, such as a model's name with / written as -- [default: default]"""
    api_key: Annotated[str | None, Parameter(env_var="HEADRACE_API_KEY", show_default=False)] = None
    """The key that the jobs were sent with [also HEADRACE_API_KEY]"""

    @contextmanager
    def client(self) -> Iterator[httpx.Client]:
        """Calls of it raise `CallFailed` instead of what httpx raises."""
        import httpx

        root = self.url.rstrip("/").removesuffix("/v1")  # as the variable may be set for OpenAI clients
        base = f"{root}/v2/{self.endpoint}"
        headers = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        try:
            with httpx.Client(base_url=base, headers=headers, timeout=_SECONDS) as client:
                yield client
        except (httpx.HTTPError, httpx.InvalidURL) as problem:
            raise CallFailed(f"{self.url} cannot be reached: {problem}.") from None

    def call(self, method: str, path: str, **parameters: Any) -> Any:
        """The answer's body. Raises `CallFailed`."""
        with self.client() as client:
            given = {name: value for name, value in parameters.items() if value is not None}
            response = client.request(method, path, params=given)
            _check(response)
            return response.json()


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
    for job in server.call("GET", "/jobs", status=status, limit=limit)["jobs"]:
        print(f"{job['id']:<46}{job['status']:<12}{_times(job):<24}{job.get('error', '')}".rstrip())
    return 0


def _show(job_id: str, /, *, server: Server = _HERE) -> int:
    """Show a job, with its output if it is complete."""
    print(json.dumps(server.call("GET", f"/status/{job_id}"), indent=2, ensure_ascii=False))
    return 0


def _cancel(job_id: str, /, *job_ids: str, server: Server = _HERE) -> int:
    """End jobs, whether they wait or run."""
    return _for_each("cancel", [job_id, *job_ids], server)


def _retry(job_id: str, /, *job_ids: str, server: Server = _HERE) -> int:
    """Queue jobs again that failed or timed out."""
    return _for_each("retry", [job_id, *job_ids], server)


def _purge(*, server: Server = _HERE) -> int:
    """Cancel all jobs that wait."""
    print(f"{server.call('POST', '/purge-queue')['removed']} jobs were cancelled")
    return 0


def _follow(job_id: str, /, *, server: Server = _HERE) -> int:
    """Print a job's output as it comes, from the beginning; other readers of its stream miss nothing.

    Text is printed as text, anything else as a line of JSON. The exit code is 0 if the job completes.
    """
    with (
        server.client() as client,
        client.stream("GET", f"/stream/{job_id}", params={"mode": "lines", "offset": 0}) as response,
    ):
        _check(response)
        for line in filter(None, response.iter_lines()):
            page = json.loads(line)
            for chunk in page["stream"]:
                sys.stdout.write(_text(chunk["output"]))
                sys.stdout.flush()
            if page["status"] in _TERMINAL:
                return _ended(page)
    raise CallFailed(f"The stream of {job_id} broke off; the job may still run.")


def _for_each(operation: str, ids: list[str], server: Server) -> int:
    for job_id in ids:
        print(f"{job_id} {server.call('POST', f'/{operation}/{job_id}')['status']}")
    return 0


def _ended(page: dict[str, Any]) -> int:
    print()
    if page["status"] == "COMPLETED":
        return 0
    raise CallFailed(f"The job is {page['status']}{': ' + page['error'] if 'error' in page else ''}.")


def _text(output: Any) -> str:
    """The first choice's tokens of a native chunk, frames as they are, a line of JSON of anything else."""
    match output:
        case {"choices": [{"tokens": list(tokens)}, *_]}:
            return "".join(tokens)
        case str(frames):
            return frames
        case _:
            return json.dumps(output, ensure_ascii=False) + "\n"


def _times(job: dict[str, Any]) -> str:
    waited, ran = job.get("delayTime"), job.get("executionTime")
    parts = [] if waited is None else [f"waited {waited / 1000:.1f} s"]
    return ", ".join(parts if ran is None else [*parts, f"ran {ran / 1000:.1f} s"])


def _check(response: httpx.Response) -> None:
    """Raises `CallFailed` with the server's own words, where the answer is not a success."""
    if response.is_success:
        return
    response.read()
    try:
        reason = response.json()["error"]
    except (ValueError, KeyError, TypeError):
        reason = response.text.strip() or response.reason_phrase
    raise CallFailed(f"The server answered {response.status_code}: {reason}")
