"""The output file of a batch. It is the only record of what was answered: a batch that was interrupted goes on from it.

A line is appended in one go. A process that is killed leaves whole lines, or one torn line at the end, which is cut off
when the file is opened again. What is written reaches the disk with `sync`.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from enum import Enum
from hashlib import blake2b
from io import FileIO
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from headrace.core.errors import ConfigError

_DIGEST_BYTES = 16


class _Recorded(Struct):
    id: str
    custom_id: str | None
    error: Any = None


class Claim(Enum):
    """What a line of the input is."""

    NEW = "new"
    ANSWERED = "answered"
    """By an earlier run."""
    DUPLICATE = "duplicate"
    """An earlier line of this pass has the same custom id."""


_decode = msgspec.json.Decoder(_Recorded).decode


class BatchRecord:
    """The output file, open and locked. Holds some 100 bytes of memory for each line of the batch, and no bodies."""

    def __init__(self, path: Path, file: FileIO) -> None:
        self._path = path
        self._file = file
        self._claimed: dict[bytes, bool] = {}
        """By digest of a name: whether a line of this pass over the input has it; False: only an earlier one."""
        self._failed_before = 0

    @property
    def failed_before(self) -> int:
        """Lines with an error that earlier runs have written."""
        return self._failed_before

    @classmethod
    @contextlib.contextmanager
    def open(cls, path: Path, *, forget_failed: bool = False) -> Iterator[BatchRecord]:
        """The record in `path`, which is made if it is not there.

        `forget_failed`: lines with an error are taken out of it first, so that they are asked again. Raises
        `ConfigError` for a file that is not a batch's output, or that another process writes to.
        """
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(_opened(path))
            if forget_failed:
                file = stack.enter_context(_without_failed(path, file))
            _sync_folder(path)  # the file itself is there to stay
            record = cls(path, file)
            record._read()
            try:
                yield record
            finally:
                record.sync()

    def claim(self, custom_id: str | None, line_id: str) -> Claim:
        """A line without a custom id goes by its own. So does a duplicate: it is answered if that was recorded."""
        if custom_id is None:
            return self._claim(_digest("line", line_id))
        found = self._claim(_digest("custom", custom_id))
        if found is Claim.DUPLICATE and self._claim(_digest("line", line_id)) is Claim.ANSWERED:
            return Claim.ANSWERED
        return found

    def append(self, line: bytes) -> None:
        """The whole line, or none of it and an `OSError`."""
        _append(self._file, line)

    def sync(self) -> None:
        """Wait until what was appended is on the disk. May be called in a thread."""
        os.fsync(self._file.fileno())

    def _claim(self, digest: bytes) -> Claim:
        before = self._claimed.get(digest)
        self._claimed[digest] = True
        if before is None:
            return Claim.NEW
        return Claim.DUPLICATE if before else Claim.ANSWERED

    def _read(self) -> None:
        for recorded, _ in _recorded_lines(self._path, self._file):
            name = ("line", recorded.id) if recorded.custom_id is None else ("custom", recorded.custom_id)
            self._claimed[_digest(*name)] = False
            self._failed_before += recorded.error is not None


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[FileIO]:
    """The file, locked. It is not buffered: what could not be written is not tried again when it is closed."""
    if path.exists() and not path.is_file():
        raise ConfigError(f"--output-file: {path} is not a file, and could not be read again.")
    try:
        file = path.open("a+b", buffering=0)
    except OSError as error:
        raise ConfigError(f"--output-file: cannot open {path}: {error.strerror}.") from None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            same = os.path.samestat(os.fstat(file.fileno()), path.stat())
        except OSError:
            same = False
        if not same:
            raise ConfigError(f"--output-file: another process writes to {path}.")
        yield file


@contextlib.contextmanager
def _without_failed(path: Path, file: FileIO) -> Iterator[FileIO]:
    """A file in the place of this one, with the lines that have no error. The old one stays until the new is whole."""
    partial = path.with_name(f"{path.name}.partial")
    partial.unlink(missing_ok=True)
    with _opened(partial) as kept:
        for recorded, text in _recorded_lines(path, file):
            if recorded.error is None:
                _append(kept, text)
        os.fsync(kept.fileno())
        partial.replace(path)
        yield kept


def _recorded_lines(path: Path, file: FileIO) -> Iterator[tuple[_Recorded, bytes]]:
    """What is recorded, with its text. A torn last line is cut off, one that only lacks its end gets it."""
    place = 0
    with open(os.dup(file.fileno()), "rb") as lines:
        lines.seek(0)
        for number, text in enumerate(lines, 1):
            try:
                recorded = _decode(text)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                if text.endswith(b"\n"):
                    raise ConfigError(
                        f"--output-file: line {number} of {path} is not of a batch's output ({error}); name another "
                        "file."
                    ) from None
                file.truncate(place)
                return
            place += len(text)
            if not text.endswith(b"\n"):
                text += b"\n"
                _append(file, b"\n")
            yield recorded, text


def _append(file: FileIO, line: bytes) -> None:
    """All of it or nothing: half a line would spoil the one that another request may still append."""
    before = os.fstat(file.fileno()).st_size
    rest = memoryview(line)
    try:
        while rest:
            rest = rest[file.write(rest) :]
    except OSError:
        file.truncate(before)
        raise


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _digest(kind: str, name: str) -> bytes:
    return blake2b(name.encode(errors="surrogatepass"), digest_size=_DIGEST_BYTES, person=kind.encode()).digest()
