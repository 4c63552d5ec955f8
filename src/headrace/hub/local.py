"""What lies in a folder: safetensors weights, whole or in shards, or a GGUF file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from headrace.core.errors import BadCheckpoint

INDEX_NAME = "model.safetensors.index.json"


def weights_path(path: Path, gguf: str = "") -> Path:
    """`path` itself if it is a .gguf file or a folder with safetensors weights, else the .gguf file in the folder.

    `gguf` asks for one GGUF file of the folder, by name or part of it. Raises `BadCheckpoint` if there are no weights,
    if a shard is missing, or if there are several GGUF files to choose from.
    """
    if path.is_file():
        return path
    if not gguf and _has_safetensors(path):
        return path
    candidates = [*path.glob("*.gguf"), *path.glob("*/*.gguf")]  # no deeper: the folder may be somebody's home
    found = sorted(file.relative_to(path).as_posix() for file in candidates)
    try:
        return path / choose_gguf(found, gguf)
    except BadCheckpoint as error:
        raise BadCheckpoint(f"{path}: {error}") from None


def choose_gguf(files: list[str], wanted: str) -> str:
    """The one of the GGUF `files` that is called `wanted`, or has it in its name; the only one if `wanted` is ""."""
    chosen = [file for file in files if file == wanted] or [file for file in files if wanted.lower() in file.lower()]
    if len(chosen) == 1:
        return chosen[0]
    if chosen:
        raise BadCheckpoint(f"several GGUF files, name one of them: {', '.join(chosen)}")
    if files:
        raise BadCheckpoint(f"no GGUF file named {wanted!r}; there are: {', '.join(files)}")
    raise BadCheckpoint("no weights: neither .safetensors nor .gguf files")


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in `path`, or {} if there is no such file; `BadCheckpoint` if it is anything else."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: cannot be read as JSON: {error}") from error
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{path}: a JSON object is expected, it holds a {type(content).__name__}")
    return content


def _has_safetensors(folder: Path) -> bool:
    """Whether the weights are safetensors files, all of them there."""
    index = read_json(folder / INDEX_NAME)
    if not index:
        return any(folder.glob("*.safetensors"))
    weight_map = index.get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise BadCheckpoint(f"{folder / INDEX_NAME}: no weight_map")
    missing = sorted({shard for shard in weight_map.values() if not (folder / shard).is_file()})
    if missing:
        raise BadCheckpoint(f"{folder}: the weights are incomplete, these files are missing: {', '.join(missing)}")
    return True
