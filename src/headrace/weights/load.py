"""Puts the tensors of a checkpoint together to a model's parameters."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from headrace.core.errors import BadCheckpoint
from headrace.hub.checkpoint import Checkpoint, WeightFormat
from headrace.models.decoder import Decoder
from headrace.models.parameters import LM_HEAD, Parameter, Part, Role, WeightReader
from headrace.weights.gguf import GgufSource
from headrace.weights.renamed import RenamedSource
from headrace.weights.safetensors import SafetensorsSource
from headrace.weights.source import TensorSource

Progress = Callable[[int, int], None]
"""Called with the bytes read so far and the bytes in all."""

_NOT_WEIGHTS = re.compile(r".*\.rotary_emb\.inv_freq|rope_freqs\.weight")
"""Rotary frequencies that old versions of transformers saved, and GGUF's divisors of them, which the config repeats."""

_NAMED_AT_MOST = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """What a model takes from a checkpoint.

    `name_of` makes of a tensor's name there the one by which the parameters know it; None: they are the same. Tensors
    that no parameter takes and that are not `is_spare` make the checkpoint one of another model.
    """

    parameters: tuple[Parameter, ...]
    is_spare: Callable[[str], bool]
    norm_offset: float = 0.0
    name_of: Callable[[str], str] | None = None


def load_weights(model: Decoder[Any], checkpoint: Checkpoint, progress: Progress | None = None) -> None:
    """Read the checkpoint's tensors into `model`.

    Raises `BadCheckpoint`, naming tensors, if some are missing, left over, of the wrong shape or of a type that is
    not supported, before anything large is read.
    """
    tied = model.blueprint.spec.tied_embeddings
    contents = Contents(
        parameters=model.blueprint.parameters,
        is_spare=lambda name: tied and name == LM_HEAD,  # a second copy of the embeddings
        norm_offset=model.blueprint.norm_offset,
    )
    read_weights(checkpoint, contents, model.load, progress)


def read_weights(
    checkpoint: Checkpoint, contents: Contents, load: Callable[[WeightReader], None], progress: Progress | None = None
) -> None:
    """Have `load` read the contents of the checkpoint. Raises `BadCheckpoint`, as `load_weights` does."""
    _read(checkpoint.path, _open(checkpoint), contents, load, progress)


def read_folder(folder: Path, contents: Contents, load: Callable[[WeightReader], None]) -> None:
    """The same with the safetensors files of a folder that is no checkpoint of its own."""
    _read(folder, SafetensorsSource(folder), contents, load, None)


def _read(
    path: Path,
    source: TensorSource,
    contents: Contents,
    load: Callable[[WeightReader], None],
    progress: Progress | None,
) -> None:
    if contents.name_of is not None:
        source = RenamedSource(source, contents.name_of)
    try:
        _check(contents, source)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path}: {error}") from None
    load(Reader(source, contents, progress))


class Reader:
    """The parameters of `contents` in `source`, counted as they are read; implements `WeightReader`."""

    def __init__(self, source: TensorSource, contents: Contents, progress: Progress | None) -> None:
        self._source = source
        self._norm_offset = 0.0 if source.norm_offset_applied else contents.norm_offset
        self._progress = progress
        self._total = sum(source.size(part.name) for parameter in contents.parameters for part in parameter.parts)
        self._done = 0

    def kind(self, part: Part) -> str:
        return self._source.kind(part.name)

    def stored(self, part: Part) -> Tensor:
        rows = self._source.stored(part.name)
        self._count(part)
        return rows

    def values(self, part: Part, dtype: torch.dtype) -> Tensor:
        matrix = torch.empty(part.shape, dtype=dtype)
        self._source.read(part.name, matrix)
        self._count(part)
        return matrix

    def tensor(self, parameter: Parameter, dtype: torch.dtype, device: torch.device) -> Tensor:
        tensor = torch.empty(parameter.shape, dtype=dtype, device=device)
        row = 0
        for part in parameter.parts:
            rows = tensor[row : row + part.rows_shape[0]]
            row += len(rows)
            if part.copies is None:
                self._source.read(part.name, rows)
            else:
                self._source.read(part.name, rows[0])
                rows[1:] = rows[0]
            self._count(part)
        if parameter.role is Role.NORM and self._norm_offset:
            tensor.add_(self._norm_offset)
        return tensor

    def _count(self, part: Part) -> None:
        self._done += self._source.size(part.name)
        if self._progress is not None:
            self._progress(self._done, self._total)


def _open(checkpoint: Checkpoint) -> TensorSource:
    if checkpoint.format is WeightFormat.SAFETENSORS:
        return SafetensorsSource(checkpoint.path)
    if checkpoint.gguf is None:
        raise BadCheckpoint(f"{checkpoint.path}: a GGUF checkpoint without its header")
    return GgufSource(checkpoint.path, checkpoint.gguf)


def _check(contents: Contents, source: TensorSource) -> None:
    wanted = {part.name: part.shape for parameter in contents.parameters for part in parameter.parts}
    if missing := [name for name in wanted if name not in source.shapes]:
        raise BadCheckpoint(f"{_listed(missing)} missing")
    for name, shape in wanted.items():
        if source.shapes[name] != shape:
            raise BadCheckpoint(
                f"tensor {name!r} has shape {list(source.shapes[name])}, {list(shape)} is expected from the config"
            )
    unwanted = [name for name in source.shapes if name not in wanted and not _NOT_WEIGHTS.fullmatch(name)]
    if left_over := [name for name in unwanted if not contents.is_spare(name)]:
        raise BadCheckpoint(f"{_listed(left_over)} left over: no part of the model takes them")


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return f"tensors {', '.join(map(repr, names[:_NAMED_AT_MOST]))}{more}"
