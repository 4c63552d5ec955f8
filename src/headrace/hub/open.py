"""From what a user calls a model to what is known of it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.core.errors import BadCheckpoint, ConfigError, ModelNotFound
from headrace.hub.checkpoint import Checkpoint, WeightFormat
from headrace.hub.gguf import read_gguf_header
from headrace.hub.gguf_config import config_from_gguf, eos_token_ids
from headrace.hub.known import KNOWN
from headrace.hub.local import read_json, weights_path
from headrace.hub.names import is_hub_id, is_path, unknown_name
from headrace.hub.pull import pull
from headrace.hub.remote import download_from_hub
from headrace.hub.templates import template_of_folder, template_of_gguf


def open_checkpoint(
    model: str, *, revision: str | None = None, overrides: Mapping[str, Any] | None = None
) -> Checkpoint:
    """Find `model`, fetching it if need be, and read its headers. `overrides` are laid over its config.

    `model` is, in this order: a known name, a folder or .gguf file, or a Hub id (OWNER/NAME, or OWNER/NAME:FILE for
    one GGUF file of several). `revision` is a branch, tag or commit, for Hub ids only. Raises `ModelNotFound` if there
    is none, `BadCheckpoint` if its files are damaged, incomplete or not supported, `ConfigError` for a revision of
    something that has none.
    """
    checkpoint = _find(model, revision)
    return replace(checkpoint, config=_overridden(checkpoint.config, overrides)) if overrides else checkpoint


def _find(model: str, revision: str | None) -> Checkpoint:
    location = os.path.expanduser(model)
    if model in KNOWN or os.path.exists(location):  # not `Path.exists`: that raises for some texts
        if revision is not None:
            raise ConfigError(f"revision {revision!r} makes no sense for {model!r}: only Hub ids have revisions")
        return _open_known(model) if model in KNOWN else _open_path(model, Path(location))
    if is_path(model):
        raise ModelNotFound(f"{model}: no such file or folder")
    if is_hub_id(model):
        return _open_path(model, download_from_hub(model, revision, progress=True))
    raise unknown_name(model)


def _overridden(config: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Objects are merged key by key; anything else is replaced."""
    merged = dict(config)
    for key, value in overrides.items():
        nested = isinstance(value, Mapping) and isinstance(config.get(key), Mapping)
        merged[key] = _overridden(config[key], value) if nested else value
    return merged


def _open_known(name: str) -> Checkpoint:
    known = KNOWN[name]
    checkpoint = _open_path(name, pull(name, progress=True))
    return replace(
        checkpoint,
        chat_template=known.chat_template or checkpoint.chat_template,
        generation_config=checkpoint.generation_config | known.generation_config,
    )


def _open_path(name: str, path: Path) -> Checkpoint:
    weights = weights_path(path)
    return _open_folder(name, weights) if weights.is_dir() else _open_gguf(name, weights)


def _open_folder(name: str, folder: Path) -> Checkpoint:
    config = read_json(folder / "config.json")
    if not config:
        raise BadCheckpoint(f"{folder}: config.json is missing or empty")
    return Checkpoint(
        name=name,
        path=folder,
        format=WeightFormat.SAFETENSORS,
        config=config,
        generation_config=read_json(folder / "generation_config.json"),
        chat_template=template_of_folder(folder),
    )


def _open_gguf(name: str, path: Path) -> Checkpoint:
    if path.suffix == ".safetensors":
        raise BadCheckpoint(f"{path}: name the folder instead, config.json and the tokenizer are needed too")
    header = read_gguf_header(path)
    parts = header.metadata.get("split.count", 0)
    if parts > 1:
        raise BadCheckpoint(
            f"{path}: one of {parts} parts; join them first: llama-gguf-split --merge {path} MODEL.gguf"
        )
    generation_config: dict[str, Any] = {}
    if eos := eos_token_ids(header):
        generation_config["eos_token_id"] = eos
    return Checkpoint(
        name=name,
        path=path,
        format=WeightFormat.GGUF,
        config=config_from_gguf(path, header),
        generation_config=generation_config,
        chat_template=template_of_gguf(header.metadata),
        gguf=header,
    )
