"""What a flag names, found by name or refused with a suggestion."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import TypeVar

from headrace.core.errors import ConfigError

T = TypeVar("T")


def by_name(known: Mapping[str, T], name: str, *, flag: str) -> T:
    """Raises `ConfigError`, with the closest names, if there is no such one."""
    found = known.get(name)
    if found is None:
        close = difflib.get_close_matches(name, known, n=3)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"Known are: {', '.join(sorted(known))}."
        raise ConfigError(f"{flag}: there is no {name!r}. {hint}")
    return found
