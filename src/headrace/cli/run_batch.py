"""`headrace run-batch`: a file of requests, answered into another file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Self

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from headrace.batch import BatchRecord, BatchRun, Tally
from headrace.batch.lines import read_lines
from headrace.cli.own_server import own_server
from headrace.cli.remote import Remote, explained
from headrace.client import AsyncClient, ClientError, RetryPolicy
from headrace.client.lanes import over_socket
from headrace.config.load import load_config
from headrace.core.errors import ConfigError, StartupError

_SECONDS_BETWEEN_LINES = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """`concurrency`: requests in flight. `retries` of a request that is refused with 429 or 5xx, or gets no answer.

    `retry_failed`: ask again what an earlier run has recorded as failed.
    """

    input_file: Path
    output_file: Path
    concurrency: int
    retries: int
    retry_failed: bool

    def __post_init__(self) -> None:
        if self.concurrency < 1:
            raise ConfigError(f"--concurrency must be at least 1, got {self.concurrency}.")
        if self.retries < 0:
            raise ConfigError(f"--retries must be at least 0, got {self.retries}.")


class Summary(msgspec.Struct, kw_only=True):
    """What `--json` prints. `skipped` lines were answered by earlier runs, `failed_before` of them with an error."""

    succeeded: int
    failed: int
    skipped: int
    failed_before: int
    seconds: float


def run_batch_at(batch: Batch, remote: Remote, *, as_json: bool) -> int:
    """By a server that runs. Raises `ConfigError` and `StartupError`."""
    return _run(batch, lambda: _client_of(batch, remote), as_json=as_json)


def run_batch_with(batch: Batch, model: str, flags: Sequence[str], *, as_json: bool) -> int:
    """By a server that is started with these `flags` of `serve`, and ends with the batch."""
    load_config([model, *flags], os.environ)  # what is wrong with them is said at once, and here

    @contextlib.asynccontextmanager
    async def client() -> AsyncIterator[AsyncClient]:
        async with own_server([model, *flags]) as socket:
            transport = over_socket(str(socket))
            async with AsyncClient("http://localhost", retry=_policy(batch), transport=transport) as made:
                try:
                    yield made
                except ClientError as error:
                    raise StartupError(f"the server of this batch is gone: {error.message}") from error

    return _run(batch, client, as_json=as_json)


@contextlib.asynccontextmanager
async def _client_of(batch: Batch, remote: Remote) -> AsyncIterator[AsyncClient]:
    try:
        client = AsyncClient(remote.url, remote.api_key, retry=_policy(batch))
    except ValueError as error:
        raise ConfigError(str(error)) from None
    async with client:
        with explained(client.base_url):
            await client.models()  # the server is there, ready, and takes the key
            yield client


def _policy(batch: Batch) -> RetryPolicy:
    return RetryPolicy(max_retries=batch.retries)


Connect = Callable[[], contextlib.AbstractAsyncContextManager[AsyncClient]]


def _run(batch: Batch, connect: Connect, *, as_json: bool) -> int:
    started = time.monotonic()
    with (
        _input_of(batch) as source,
        BatchRecord.open(batch.output_file, forget_failed=batch.retry_failed) as record,
        BatchProgress(os.fstat(source.fileno()).st_size) as progress,
    ):

        async def run() -> None:
            async with connect() as client:
                lines = read_lines(source)
                await BatchRun(client, lines, record, concurrency=batch.concurrency, on_progress=progress.show).run()

        try:
            asyncio.run(run())
        except (OSError, KeyboardInterrupt, StartupError) as problem:
            progress.close()
            if progress.tally.read_bytes:
                print(f"{_said(progress.tally)}. The same command goes on from there.", file=sys.stderr)
            if isinstance(problem, OSError):
                raise StartupError(f"the batch cannot go on: {problem.strerror}.") from None
            raise
        tally = progress.tally
    summary = Summary(
        succeeded=tally.succeeded,
        failed=tally.failed,
        skipped=tally.skipped,
        failed_before=record.failed_before,
        seconds=round(time.monotonic() - started, 3),
    )
    _print_summary(summary, tally, batch, as_json=as_json)
    return 1 if summary.failed or summary.failed_before else 0


@contextlib.contextmanager
def _input_of(batch: Batch) -> Iterator[BinaryIO]:
    try:
        with batch.input_file.open("rb") as source:
            if batch.output_file.exists() and batch.output_file.samefile(batch.input_file):
                raise ConfigError("--input-file and --output-file must not be the same file.")
            yield source
    except (FileNotFoundError, IsADirectoryError, PermissionError) as error:
        if error.filename != str(batch.input_file):
            raise
        raise ConfigError(f"--input-file: cannot read {batch.input_file}: {error.strerror}.") from None


def _print_summary(summary: Summary, tally: Tally, batch: Batch, *, as_json: bool) -> None:
    if as_json:
        print(msgspec.json.encode(summary).decode())
        return
    asked = summary.succeeded + summary.failed
    rate = asked / summary.seconds if summary.seconds else 0.0
    print(f"{_said(tally)} in {summary.seconds:.1f} s ({rate:.1f} a second): {batch.output_file}", file=sys.stderr)
    if failed := summary.failed + summary.failed_before:
        print(f"{failed} have an error in the output; --retry-failed asks them again.", file=sys.stderr)


def _said(tally: Tally) -> str:
    before = f", {tally.skipped} were before" if tally.skipped else ""
    return f"{tally.succeeded} requests answered, {tally.failed} failed{before}"


class BatchProgress:
    """A bar on a terminal, a line on standard error now and then elsewhere. `tally` is the latest that was shown."""

    def __init__(self, input_bytes: int) -> None:
        self.tally = Tally()
        self._last_line = time.monotonic()
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = None if self._bar is None else self._bar.add_task("", total=input_bytes, said="")

    def show(self, tally: Tally) -> None:
        self.tally = tally
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, completed=tally.read_bytes, said=_said(tally))
        elif time.monotonic() >= self._last_line + _SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            print(_said(tally), file=sys.stderr)

    def close(self) -> None:
        """Leave the bar as it is; call before anything else is printed."""
        if self._bar is not None:
            self._bar.stop()

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _bar() -> Progress:
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("{task.fields[said]}"), TimeRemainingColumn())
    return Progress(*columns, console=Console(stderr=True), refresh_per_second=4)
