"""From what a flag, a YAML key or a variable holds to the value of a field. One set of rules for all three."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from headrace.config.rules import FieldRules
from headrace.core.errors import ConfigError

_SUFFIXES = {"k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_SIZE = re.compile(r"([+-]?\d+(?:\.\d+)?)([kmgtKMGT]?)")
_SWITCH = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def read_value(rules: FieldRules, raw: Any, label: str) -> Any:
    """The checked value for a field. `raw` is a text, or what YAML made of it; `label` names the culprit.

    Raises `ConfigError` saying what is allowed.
    """
    if raw is None and not rules.optional:
        raise ConfigError(f"{label} must not be empty (null).")
    value = None if raw is None else _read(rules, raw, label)
    rules.check(value, label)
    return value


def _read(rules: FieldRules, raw: Any, label: str) -> Any:
    if isinstance(raw, str) and raw.casefold() in rules.spellings:
        return rules.spellings[raw.casefold()]
    if rules.is_list:
        return tuple(_list_items(rules, raw if isinstance(raw, list) else [raw], label))
    if rules.is_mapping:
        return _mapping(raw, label)
    if rules.choices:
        return next((choice for choice in rules.choices if str(choice).casefold() == str(raw).casefold()), raw)
    if not isinstance(raw, str):
        if rules.kind is str and isinstance(raw, int | float):
            raise ConfigError(f"{label} must be a text; put it in quotes.")
        return float(raw) if rules.kind is float and type(raw) is int else raw
    return _from_text(rules, raw, label)


def _from_text(rules: FieldRules, text: str, label: str) -> Any:
    if rules.kind is str:
        return text
    if rules.kind is Path:
        return Path(text).expanduser()
    if rules.kind is bool:
        return _SWITCH.get(text.casefold(), text)
    if rules.size:
        return _size(text, label)
    try:
        return rules.kind(text)
    except ValueError:
        return text


def _size(text: str, label: str) -> int:
    """`1k` is 1000, `1K` is 1024, `25.6k` is 25600."""
    if match := _SIZE.fullmatch(text):
        number = Decimal(match[1]) * _SUFFIXES.get(match[2], 1)
        if number == int(number):
            return int(number)
    raise ConfigError(f"{label} must be a whole number, such as 4096, 4k (4000) or 4K (4096), got {text!r}.")


def _list_items(rules: FieldRules, items: Sequence[Any], label: str) -> list[str]:
    read: list[str] = []
    for item in items:
        if not isinstance(item, str):
            raise ConfigError(f"{label} must be a list of texts, got {item!r} in it; put it in quotes.")
        nested = _json_list(item)
        if nested is not None:
            read += nested
        elif rules.commas:
            read += [part.strip() for part in item.split(",") if part.strip()]
        else:
            read.append(item)
    return read


def _json_list(text: str) -> list[Any] | None:
    if not text.lstrip().startswith("["):
        return None
    try:
        return json.loads(text)
    except ValueError:
        return None


def _mapping(raw: Any, label: str) -> Any:
    if not isinstance(raw, str):
        return raw
    try:
        return json.loads(raw)
    except ValueError as problem:
        raise ConfigError(f"{label} must be a JSON object, got {raw!r} ({problem}).") from None
