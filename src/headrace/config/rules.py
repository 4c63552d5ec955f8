"""What a field of the configuration says of itself beside its type: allowed values, other spellings, its variable.

Sections carry these in `Annotated` and call `check_fields` when they are made, so a configuration that exists is valid
whether it came from the command line or from Python.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

from headrace.core.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Must:
    """A condition on a value that is not None. `text` completes the sentence "--flag must be …"."""

    text: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True, slots=True)
class Variable:
    """A second environment variable, which other servers' users already set, beside `HEADRACE_<FIELD>`."""

    name: str


@dataclass(frozen=True, slots=True)
class Spellings:
    """Words that stand for a value (`half` for `float16`)."""

    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Short:
    """A second, short flag (`-q`)."""

    flag: str


@dataclass(frozen=True, slots=True)
class Alias:
    """A second name of the field, which other servers' users already give, as a flag and as a YAML key."""

    name: str


@dataclass(frozen=True, slots=True)
class Size:
    """An integer that may be written with a suffix: k, m, g, t are powers of 1000, K, M, G, T of 1024."""


@dataclass(frozen=True, slots=True)
class Commas:
    """A list whose items may also be separated by commas."""


def at_least(low: float, *, or_minus_one: str | None = None) -> Must:
    """`or_minus_one` says what -1 stands for, where it is allowed as well."""
    if or_minus_one is None:
        return Must(f"at least {low}", lambda value: value >= low)
    return Must(f"at least {low}, or -1 ({or_minus_one})", lambda value: value >= low or value == -1)


def above(low: float) -> Must:
    return Must(f"greater than {low}", lambda value: value > low)


def between(low: float, high: float) -> Must:
    return Must(f"from {low} to {high}", lambda value: low <= value <= high)


def power_of_two(low: int, high: int) -> Must:
    return Must(f"a power of two from {low} to {high}", lambda value: low <= value <= high and value & (value - 1) == 0)


NOT_EMPTY = Must("a text that is not empty", lambda value: all(value) if isinstance(value, tuple) else bool(value))
STARTS_WITH_SLASH = Must("empty or start with '/'", lambda value: value == "" or value.startswith("/"))


@dataclass(frozen=True, slots=True)
class FieldRules:
    """A field's type without its optionality, and its rules. `kind` is a plain type, a Literal, a tuple or a dict."""

    kind: Any
    optional: bool
    must: tuple[Must, ...]
    spellings: Mapping[str, Any]
    variable: str | None
    short: str | None
    alias: str | None
    size: bool
    commas: bool

    @property
    def is_list(self) -> bool:
        return get_origin(self.kind) is tuple

    @property
    def is_mapping(self) -> bool:
        return get_origin(self.kind) is dict

    @property
    def choices(self) -> tuple[Any, ...]:
        """The values of a Literal; empty for every other kind."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    def check(self, value: object, label: str) -> None:
        """Raises `ConfigError`, with `label` as the name of the culprit."""
        if value is None and self.optional:
            return
        if not self._has_kind(value):
            raise ConfigError(f"{label} must be {self.description}, got {value!r}.")
        for must in self.must:
            if not must.holds(value):
                raise ConfigError(f"{label} must be {must.text}, got {_plain(value)}.")

    @property
    def description(self) -> str:
        """What a value looks like, in words."""
        if self.choices:
            return "one of " + ", ".join(str(choice) for choice in self.choices)
        if self.is_list:
            return "a list of texts"
        if self.is_mapping:
            return "a JSON object"
        return {bool: "true or false", int: "an integer", float: "a number", str: "a text", Path: "a path"}[self.kind]

    def _has_kind(self, value: object) -> bool:
        if self.choices:
            return any(value == choice and type(value) is type(choice) for choice in self.choices)
        if self.is_list:
            return isinstance(value, tuple) and all(isinstance(item, str) for item in value)
        if self.is_mapping:
            return isinstance(value, dict) and all(isinstance(key, str) for key in value)
        if self.kind is float:
            return isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind is int:
            return isinstance(value, int) and not isinstance(value, bool)
        return isinstance(value, self.kind)


@functools.cache
def rules_of(section: type[Any]) -> dict[str, FieldRules]:
    """The rules of each field of a section, by name. Fields that are sections themselves, or lists of them, are left
    out.
    """
    hints = get_type_hints(section, include_extras=True)
    return {known.name: _read_rules(hints[known.name]) for known in fields(section) if not _nests(hints[known.name])}


def check_fields(section: object) -> None:
    """For a section's `__post_init__`. Raises `ConfigError`, naming the field and what is allowed."""
    for name, rules in rules_of(type(section)).items():  # type: ignore[arg-type]  # mypy takes no class for hashable
        rules.check(getattr(section, name), name)


def _nests(hint: Any) -> bool:
    return is_dataclass(hint) or (get_origin(hint) is tuple and is_dataclass(get_args(hint)[0]))


def _read_rules(hint: Any) -> FieldRules:
    extras: tuple[Any, ...] = ()
    if get_origin(hint) is Annotated:
        hint, *rest = get_args(hint)
        extras = tuple(rest)
    optional = get_origin(hint) in (Union, types.UnionType)
    if optional:
        (hint,) = [part for part in get_args(hint) if part is not type(None)]
    return FieldRules(
        kind=hint,
        optional=optional,
        must=tuple(extra for extra in extras if isinstance(extra, Must)),
        spellings={
            word: value for extra in extras if isinstance(extra, Spellings) for word, value in extra.values.items()
        },
        variable=next((extra.name for extra in extras if isinstance(extra, Variable)), None),
        short=next((extra.flag for extra in extras if isinstance(extra, Short)), None),
        alias=next((extra.name for extra in extras if isinstance(extra, Alias)), None),
        size=any(isinstance(extra, Size) for extra in extras),
        commas=any(isinstance(extra, Commas) for extra in extras),
    )


def _plain(value: object) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)
