"""How far a download has come: a bar on a terminal, log lines elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from headrace.hub.known import Package

logger = logging.getLogger(__name__)


class DownloadProgress(Protocol):
    """Is told what happens and shows it."""

    def begin(self, package: Package, position: int, count: int) -> None:
        """The download of the `position`th of `count` packages begins."""

    def reach(self, done: int) -> None:
        """`done` bytes of all packages together are here."""


class LogProgress:
    """A line a package."""

    def begin(self, package: Package, position: int, count: int) -> None:
        logger.info("  package %d of %d: %s, %s", position, count, package.requirement, megabytes(package.wheel_bytes))

    def reach(self, done: int) -> None:
        """Bytes are not worth a line."""


@contextmanager
def bar_progress(name: str, total: int) -> Iterator[DownloadProgress]:
    """One bar over `total` bytes, with the package as its postfix."""
    from tqdm import tqdm  # 55 ms to import, and needed only when something is fetched

    class Bar(tqdm):
        def begin(self, package: Package, position: int, count: int) -> None:
            self.set_postfix_str(f"{position}/{count}")

        def reach(self, done: int) -> None:
            self.update(done - self.n)

    with Bar(total=total, desc=name, unit="B", unit_scale=True) as bar:
        yield bar


def megabytes(count: int) -> str:
    return f"{count / 1e6:.0f} MB"
