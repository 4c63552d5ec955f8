"""One configuration out of four sources: command line > YAML file > environment > default."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from cyclopts.exceptions import CycloptsError

from headrace.config.command_line import Words, explain, serve_app, suggestion
from headrace.config.knobs import all_knobs, build, flag_of, names_by_alias
from headrace.config.sections import ServeConfig
from headrace.config.served import OF_ONE_MODEL, read_models, with_companion
from headrace.config.unimplemented import UNIMPLEMENTED
from headrace.config.values import read_value
from headrace.core.errors import ConfigError

MODELS = "models"
"""The one key of a YAML file that is no flag: the list of models to serve."""


@dataclass(frozen=True, slots=True)
class Given:
    """A value that somebody gave, not yet read; `label` says where, for error messages."""

    raw: Any
    label: str


def load_config(arguments: Sequence[str], environment: Mapping[str, str]) -> ServeConfig:
    """The configuration of `headrace serve ARGUMENTS`. Raises `ConfigError`, naming the flag, key or variable."""
    try:
        return serve_app(lambda words: config_of(words, environment))(arguments)
    except CycloptsError as problem:
        raise explain(problem) from None


def config_of(words: Words, environment: Mapping[str, str]) -> ServeConfig:
    """As `load_config`, from a command line that has been split already."""
    given = dict(_from_environment(environment))
    if files := words.get("config"):
        if len(files) > 1:
            raise ConfigError("--config may be given only once.")
        given |= _from_yaml(Path(files[0]))
    given |= _from_command_line(words)
    knobs = all_knobs()
    models = given.pop(MODELS, None)
    for name, flag in UNIMPLEMENTED.items():
        if name in given:
            flag.check(given[name].raw, given[name].label)
    values = {
        name: read_value(knobs[name].rules, value.raw, value.label) for name, value in given.items() if name in knobs
    }
    if models is not None:
        for name in OF_ONE_MODEL:
            if name in given:
                raise ConfigError(f"{given[name].label}: with several models, give it in the entry that it is for.")
        values[MODELS] = read_models(models.raw, models.label, values)
    elif "model" not in given:
        values[MODELS] = with_companion(values)
    return build(values)


def _from_environment(environment: Mapping[str, str]) -> Iterator[tuple[str, Given]]:
    """A variable set to nothing counts as unset."""
    for name, knob in all_knobs().items():
        for variable in knob.variables:
            if text := environment.get(variable):
                yield name, Given(text, variable)
                break


def _from_yaml(path: Path) -> dict[str, Given]:
    given: dict[str, Given] = {}
    for key, raw in _read_yaml(path).items():
        name = str(key).removeprefix("--").replace("-", "_")
        name = names_by_alias().get(name, name)
        if name not in all_knobs() and name not in UNIMPLEMENTED and name != MODELS:
            hint = suggestion(name, lambda known: known.replace("_", "-"), MODELS)
            raise ConfigError(f"unknown key {key!r} in {path}{hint}")
        if name in given:
            raise ConfigError(f"{key!r} stands twice in {path}.")
        given[name] = Given(raw, f"{key!r} in {path}")
    return given


def _read_yaml(path: Path) -> dict[Any, Any]:
    if path.suffix not in (".yaml", ".yml"):
        raise ConfigError(f"--config must name a .yaml or .yml file, got {str(path)!r}.")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"--config: cannot read {path}: {problem}.") from None
    except yaml.YAMLError as problem:
        raise ConfigError(f"--config: {path} is not YAML: {problem}") from None
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ConfigError(f"--config: {path} must hold `flag: value` pairs, got {type(content).__name__}.")
    return content


def _from_command_line(words: Words) -> dict[str, Given]:
    """A flag given more than once: the last one counts, except that lists grow."""
    given: dict[str, Given] = {}
    for name, value in words.items():
        if name in ("positional", "config"):
            continue
        if isinstance(value, dict):
            value = _read_leaves(value, flag_of(name))
        elif isinstance(value, list) and not (name in all_knobs() and all_knobs()[name].rules.is_list):
            value = value[-1] if value else ""
        given[name] = Given(value, flag_of(name if value is not False else f"no_{name}"))
    if "positional" in words:
        given["model"] = Given(words["positional"], "MODEL")
    return given


def _read_leaves(words: Mapping[str, Any], label: str) -> dict[str, Any]:
    """`--flag.a.b TEXT`: the text is JSON where it can be, else itself."""
    return {
        key: _read_leaves(inner, f"{label}.{key}") if isinstance(inner, Mapping) else _json_or_text(inner)
        for key, inner in words.items()
    }


def _json_or_text(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
