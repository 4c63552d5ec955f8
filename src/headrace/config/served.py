"""Several models in one server: the list `models` of a YAML file, and the pair that is served when nothing is said.

An entry has the keys of a model's own knobs, and `name` (one or several), `path` and `lazy`. What stands outside the
list, in the environment or on the command line holds for every entry that does not say otherwise.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from headrace.config.engine import EngineConfig
from headrace.config.knobs import all_knobs, names_by_alias
from headrace.config.sections import LimitsConfig, ModelConfig, ServedModelConfig
from headrace.config.unimplemented import UNIMPLEMENTED
from headrace.config.values import read_value
from headrace.core.errors import ConfigError

Values = Mapping[str, Any]
"""Values of knobs that have been read, by field name."""

OF_ONE_MODEL = ("model", "served_model_name", "tokenizer", "revision")
"""Knobs that make no sense for several models."""

COMPANION = "minilm"
"""Served beside the default model, loaded on first use, when nobody says what to serve."""

_OF_THE_MACHINE = ("device", "kernels", "threads")
_SHORT_NAMES = {"name": "served_model_name", "path": "model"}
_LAZY = "lazy"


def read_models(raw: Any, label: str, shared: Values) -> tuple[ServedModelConfig, ...]:
    """The models of a list as YAML read it; `label` says where it stands. Raises `ConfigError`, naming the key."""
    if not isinstance(raw, list) or not raw:
        raise ConfigError(f"{label} must be a list of models, such as [{{name: chat, path: smollm2}}, minilm].")
    return tuple(_read_entry(entry, f"{label}, entry {number}", shared) for number, entry in enumerate(raw, start=1))


def with_companion(values: Values) -> tuple[ServedModelConfig, ...]:
    """The default model with the knobs that were given, and beside it a small embedder."""
    default = _served(values)
    limits = LimitsConfig(**_of(LimitsConfig, values))
    engine = EngineConfig(**{name: value for name, value in values.items() if name in _OF_THE_MACHINE})
    companion = ServedModelConfig(model=ModelConfig(model=COMPANION), engine=engine, limits=limits, lazy=True)
    return (default,) if COMPANION in default.names else (default, companion)


def _read_entry(entry: Any, label: str, shared: Values) -> ServedModelConfig:
    if isinstance(entry, str):
        entry = {"model": entry}
    if not isinstance(entry, dict):
        raise ConfigError(f"{label} must be a model or `key: value` pairs, got {entry!r}.")
    values, lazy = dict(shared), False
    given: set[str] = set()
    for key, raw in entry.items():
        name = _knob_name(str(key), label)
        if name in given:
            raise ConfigError(f"{label}: {key!r} says what another key says already.")
        given.add(name)
        if name in UNIMPLEMENTED:
            UNIMPLEMENTED[name].check(raw, f"{label}: {key!r}")
        elif name != _LAZY:
            values[name] = read_value(all_knobs()[name].rules, raw, f"{label}: {key!r}")
        elif isinstance(raw, bool):
            lazy = raw
        else:
            raise ConfigError(f"{label}: {key!r} must be true or false, got {raw!r}.")
    if "model" not in given:
        raise ConfigError(f"{label} names no model: it needs `path`, with a known name, a folder, a file or a Hub id.")
    try:
        return _served(values, lazy=lazy)
    except ConfigError as problem:  # of several knobs together
        raise ConfigError(f"{label}: {problem.message}") from None


def _knob_name(key: str, label: str) -> str:
    name = key.replace("-", "_")
    name = _SHORT_NAMES.get(name) or names_by_alias().get(name, name)
    own = list(_names_of_a_model())
    if name in own or name in UNIMPLEMENTED or name == _LAZY:
        return name
    if name in all_knobs():
        raise ConfigError(f"{label}: {key!r} is for the whole server; it stands outside `models`.")
    close = difflib.get_close_matches(name.casefold(), [*own, *_SHORT_NAMES, _LAZY], n=1)
    hint = f"did you mean {close[0].replace('_', '-')}?" if close else "see headrace serve --help."
    raise ConfigError(f"{label}: unknown key {key!r}; {hint}")


def _names_of_a_model() -> Iterator[str]:
    for section in (ModelConfig, EngineConfig, LimitsConfig):
        yield from (known.name for known in fields(section))


def _served(values: Values, *, lazy: bool = False) -> ServedModelConfig:
    return ServedModelConfig(
        model=ModelConfig(**_of(ModelConfig, values)),
        engine=EngineConfig(**_of(EngineConfig, values)),
        limits=LimitsConfig(**_of(LimitsConfig, values)),
        lazy=lazy,
    )


def _of(section: type[Any], values: Values) -> dict[str, Any]:
    return {known.name: values[known.name] for known in fields(section) if known.name in values}
