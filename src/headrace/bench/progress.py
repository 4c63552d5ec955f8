"""How far a sweep is: a bar on a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

_REFRESHES = 2
"""A second. Each takes processor time from the server that is measured."""


class SweepBar:
    """A bar on standard error while the `with` block lasts."""

    def __init__(self) -> None:
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[failed]}"),
            console=Console(stderr=True),
            refresh_per_second=_REFRESHES,
            transient=True,
        )
        self._task: TaskID | None = None
        self._failed = 0

    def begin(self, level: str, requests: int) -> None:
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._failed = 0
        self._task = self._bar.add_task(level, total=requests, failed="")

    def advance(self, succeeded: bool) -> None:
        assert self._task is not None
        self._failed += not succeeded
        self._bar.update(self._task, advance=1, failed=f"{self._failed} failed" if self._failed else "")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.stop()
