"""Files that a benchmark writes when all is measured: what would fail then is to fail before."""

from __future__ import annotations

from pathlib import Path

from headrace.core.errors import ConfigError, StartupError


def check_folder(flag: str, path: Path | None) -> None:
    """Raises `ConfigError` if the file's folder is not there."""
    if path is not None and not path.absolute().parent.is_dir():
        raise ConfigError(f"{flag}: there is no folder {path.absolute().parent}.")


def write_text(path: Path, text: str) -> None:
    """Raises `StartupError`."""
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise StartupError(f"{path} cannot be written: {error.strerror}.") from None
