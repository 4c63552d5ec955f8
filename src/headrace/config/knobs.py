"""The fields of the `ServeConfig` tree as one flat list: what flags, keys, variables and help are generated from."""

from __future__ import annotations

import ast
import functools
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import MISSING, dataclass, fields, is_dataclass
from typing import Any, get_type_hints

from headrace.config.rules import FieldRules, rules_of
from headrace.config.sections import ServeConfig

GENERAL = "General"
"""Heading of the flags that belong to no section."""

_ACRONYMS = frozenset({"api", "http"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Knob:
    """One field of the tree; `title` heads its section in the help."""

    name: str
    title: str
    help: str
    default: Any
    rules: FieldRules

    @property
    def flag(self) -> str:
        return flag_of(self.name)

    @property
    def variables(self) -> tuple[str, ...]:
        """Environment variables, the strongest first."""
        own = f"HEADRACE_{self.name.upper()}"
        return (own,) if self.rules.variable is None else (own, self.rules.variable)


def flag_of(name: str) -> str:
    return "--" + name.replace("_", "-")


@functools.cache
def all_knobs() -> Mapping[str, Knob]:
    """Every knob by field name, in the order of the tree. Field names are unique across sections."""
    knobs = [knob for section, title in _sections() for knob in _knobs_of(section, title)]
    table = {knob.name: knob for knob in knobs}
    if len(table) != len(knobs):
        raise AssertionError("two sections of ServeConfig have a field of the same name")
    return table


@functools.cache
def names_by_alias() -> Mapping[str, str]:
    """Field names by the second names of fields."""
    return {knob.rules.alias: name for name, knob in all_knobs().items() if knob.rules.alias is not None}


def build(values: Mapping[str, Any]) -> ServeConfig:
    """The tree with these fields set and all others at their defaults. Raises `ConfigError` from the sections."""
    tree: dict[str, Any] = {}
    for name, hint in _fields_of_tree():
        if is_dataclass(hint):
            tree[name] = hint(**{known.name: values[known.name] for known in fields(hint) if known.name in values})
        elif name in values:
            tree[name] = values[name]
    return ServeConfig(**tree)


def _fields_of_tree() -> Iterable[tuple[str, type]]:
    return get_type_hints(ServeConfig).items()


def _sections() -> Iterator[tuple[type, str]]:
    for name, hint in _fields_of_tree():
        if is_dataclass(hint):
            summary = (inspect.getdoc(hint) or "").splitlines()[0].rstrip(".")
            title = name.upper() if name in _ACRONYMS else name.capitalize()
            yield hint, f"{title}: {summary[0].lower()}{summary[1:]}"
    yield ServeConfig, GENERAL


def _knobs_of(section: type, title: str) -> Iterator[Knob]:
    helps = _field_docs(section.__module__)[section.__name__]
    rules = rules_of(section)
    for known in fields(section):
        if known.name in rules:
            default = known.default if known.default_factory is MISSING else known.default_factory()
            yield Knob(name=known.name, title=title, help=helps[known.name], default=default, rules=rules[known.name])


@functools.cache
def _field_docs(module: str) -> dict[str, dict[str, str]]:
    """The strings below the fields of a module's classes, by class and field. Python does not keep them at run time."""
    docs: dict[str, dict[str, str]] = {}
    for node in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(node, ast.ClassDef):
            docs[node.name] = dict(_docs_of(node))
    return docs


def _docs_of(node: ast.ClassDef) -> Iterator[tuple[str, str]]:
    for statement, below in zip(node.body, node.body[1:], strict=False):
        match statement, below:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(text))):
                yield name, " ".join(text.split())
