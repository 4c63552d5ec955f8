"""The model cache: one folder a known model, complete or absent.

~/.cache/headrace/models/        or HEADRACE_MODELS
    smollm2/                     what `pull` finished
    .smollm2.partial/            what it has fetched so far
    .smollm2.lock                held while it works
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headrace.hub.known import KNOWN, KnownModel


@dataclass(frozen=True, slots=True)
class ModelListing:
    """A line of `headrace models`. `size` is in bytes; `path` is where the model is, or will be once pulled."""

    name: str
    task: Literal["generate", "embed"]
    description: str
    licence: str
    size: int
    present: bool
    path: Path


def models_dir() -> Path:
    """Where pulled models are kept: HEADRACE_MODELS, else ~/.cache/headrace/models."""
    return Path(os.environ.get("HEADRACE_MODELS") or "~/.cache/headrace/models").expanduser().absolute()


def entry_path(model: KnownModel) -> Path:
    """What a loader opens: the .gguf file or the folder. It may not exist yet."""
    return models_dir() / model.name / model.entry


def is_present(model: KnownModel) -> bool:
    """Whether every file is there with its full size. Checksums were compared when the model was pulled."""
    folder = models_dir() / model.name
    return all(_size(folder / file.path) == file.size for file in model.files)


def list_models() -> list[ModelListing]:
    """Every known model, and whether it is on this machine."""
    return [
        ModelListing(
            name=model.name,
            task=model.task,
            description=model.description,
            licence=model.licence,
            size=model.size,
            present=is_present(model),
            path=entry_path(model),
        )
        for model in KNOWN.values()
    ]


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except (FileNotFoundError, NotADirectoryError):
        return None
