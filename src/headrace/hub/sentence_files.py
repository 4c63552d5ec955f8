"""What the files of sentence-transformers beside a model say of its use: pooling, further layers, length, prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headrace.core.errors import BadCheckpoint
from headrace.core.pooling import PoolingMode
from headrace.hub.local import read_json

_LENGTH_FILES = tuple(
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_SWITCHES = {
    "pooling_mode_cls_token": PoolingMode.CLS,
    "pooling_mode_max_tokens": PoolingMode.MAX,
    "pooling_mode_mean_tokens": PoolingMode.MEAN,
    "pooling_mode_mean_sqrt_len_tokens": PoolingMode.MEAN_SQRT_LEN,
    "pooling_mode_weightedmean_tokens": PoolingMode.WEIGHTED_MEAN,
    "pooling_mode_lasttoken": PoolingMode.LAST,
}
"""In the order in which the vectors of several modes follow each other."""
_MODES = {
    "cls": PoolingMode.CLS,
    "max": PoolingMode.MAX,
    "mean": PoolingMode.MEAN,
    "mean_sqrt_len_tokens": PoolingMode.MEAN_SQRT_LEN,
    "weightedmean": PoolingMode.WEIGHTED_MEAN,
    "lasttoken": PoolingMode.LAST,
}
_NO_LIMIT = 1_000_000
"""Tokenizers without a limit say some huge number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseModule:
    """A linear layer in a folder of its own. `function` is the last part of a class name of torch ("Tanh")."""

    path: Path
    in_features: int
    out_features: int
    bias: bool
    function: str


@dataclass(frozen=True, slots=True, kw_only=True)
class NormModule:
    """A layer norm in a folder of its own."""

    path: Path
    size: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceModules:
    """What `modules.json` lists after the transformer. `modes`: how it pools; several lie one after another.

    `layers` change the vector that comes of that; `normalizes`: in the end it is brought to length 1.
    """

    modes: tuple[PoolingMode, ...]
    layers: tuple[DenseModule | NormModule, ...]
    normalizes: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SentenceFiles:
    """What is said of a model, each None or empty if nothing is.

    `max_seq_length`: the tokens to which longer input is cut. `activation`: what a classifier puts its scores through,
    the dotted name of a class. `prompts`: what to put before a text, by what it is used for.
    """

    modules: SentenceModules | None = None
    max_seq_length: int | None = None
    do_lower_case: bool = False
    activation: str | None = None
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt_name: str | None = None


def read_sentence_files(folder: Path) -> SentenceFiles:
    """The files in the `folder` of a checkpoint (a GGUF file has none beside it).

    Raises `BadCheckpoint`, naming the file, if one is damaged or asks for what is not supported.
    """
    if not folder.is_dir():
        return SentenceFiles()
    lengths = next((found for name in _LENGTH_FILES if (found := read_json(folder / name))), {})
    general = read_json(folder / "config_sentence_transformers.json")
    limits = [lengths.get("max_seq_length"), read_json(folder / "tokenizer_config.json").get("model_max_length")]
    return SentenceFiles(
        modules=_modules(folder),
        max_seq_length=next((int(limit) for limit in limits if limit is not None and limit < _NO_LIMIT), None),
        do_lower_case=bool(lengths.get("do_lower_case", False)),
        activation=general.get("activation_fn"),
        prompts=general.get("prompts") or {},
        default_prompt_name=general.get("default_prompt_name"),
    )


def _modules(folder: Path) -> SentenceModules | None:
    listed = _read_list(folder / "modules.json")
    modes: tuple[PoolingMode, ...] = ()
    layers: list[DenseModule | NormModule] = []
    normalizes = False
    for place, module in enumerate(listed):
        kind, path = module["type"].rpartition(".")[2], folder / module["path"]
        if kind in ("Transformer", "Dropout"):
            continue
        if kind == "Pooling" and not modes:
            modes = _pooling_modes(path / "config.json")
        elif kind == "Dense" and modes:
            layers.append(_dense(path))
        elif kind == "LayerNorm" and modes:
            layers.append(_norm(path))
        elif kind == "Normalize" and place == len(listed) - 1:
            normalizes = True
        else:
            raise BadCheckpoint(f"{folder / 'modules.json'}: module {place}, {module['type']}, is not supported there")
    if not modes:
        return None
    return SentenceModules(modes=modes, layers=tuple(layers), normalizes=normalizes)


def _read_list(path: Path) -> list[dict[str, Any]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return []
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{path}: cannot be read as JSON: {error}") from error
    entries = content if isinstance(content, list) else [content]
    if not all(isinstance(entry, dict) and {"type", "path"} <= entry.keys() for entry in entries):
        raise BadCheckpoint(f"{path}: a list of modules, each with 'type' and 'path', is expected")
    return entries


def _pooling_modes(path: Path) -> tuple[PoolingMode, ...]:
    config = read_json(path)
    named = config.get("pooling_mode")
    if named is None:
        return tuple(mode for key, mode in _SWITCHES.items() if config.get(key)) or (PoolingMode.MEAN,)
    names = [named] if isinstance(named, str) else named
    if unknown := [name for name in names if name not in _MODES]:
        raise BadCheckpoint(f"{path}: pooling mode {unknown[0]!r} is not supported; supported: {', '.join(_MODES)}")
    return tuple(_MODES[name] for name in names)


def _dense(path: Path) -> DenseModule:
    config = read_json(path / "config.json")
    vector = "sentence_embedding"
    names = {config.get(key) for key in ("module_input_name", "module_output_name")} - {None, vector}
    if config.get("use_residual") or names:
        raise BadCheckpoint(f"{path / 'config.json'}: only layers from {vector!r} to itself are supported")
    return DenseModule(
        path=path,
        in_features=_required(config, "in_features", path),
        out_features=_required(config, "out_features", path),
        bias=config.get("bias", True),
        function=config.get("activation_function", "torch.nn.modules.activation.Tanh").rpartition(".")[2],
    )


def _norm(path: Path) -> NormModule:
    return NormModule(path=path, size=_required(read_json(path / "config.json"), "dimension", path))


def _required(config: Mapping[str, Any], key: str, folder: Path) -> Any:
    if key not in config:
        raise BadCheckpoint(f"{folder / 'config.json'}: {key!r} is missing")
    return config[key]
