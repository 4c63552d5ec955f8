"""`--structured-outputs-config`: what holds for the form of all answers."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from headrace.core.errors import ConfigError

_FLAG = "--structured-outputs-config"
_OWN_BACKENDS = ("auto", "guidance")
_BACKENDS = (*_OWN_BACKENDS, "xgrammar", "outlines", "lm-format-enforcer")


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputsConfig:
    """`backend`: there is one, llguidance ("guidance"), which also serves who asks for another. The other fields hold
    for every request, as if it had said so itself: `disable_any_whitespace` and `disable_additional_properties` are
    those of `StructuredOutputsParams`. `enable_in_reasoning`: the reasoning has to follow the form as well.
    """

    backend: str = "auto"
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    enable_in_reasoning: bool = False

    @property
    def asks_for_another(self) -> bool:
        """Whether `backend` is not what serves it."""
        return self.backend not in _OWN_BACKENDS


DEFAULTS = StructuredOutputsConfig()
"""What holds where a server says nothing."""


def read_structured_outputs(given: Mapping[str, Any]) -> StructuredOutputsConfig:
    """Raises `ConfigError`, naming the key."""
    known = [one.name for one in fields(StructuredOutputsConfig)]
    for name, value in given.items():
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(known)}."
            raise ConfigError(f"{_FLAG}: unknown key {name!r}; {hint}")
        if name != "backend" and not isinstance(value, bool):
            raise ConfigError(f"{_FLAG}: {name} must be true or false, got {value!r}.")
    backend = given.get("backend", "auto")
    if backend not in _BACKENDS:
        raise ConfigError(f"{_FLAG}: backend must be one of {', '.join(_BACKENDS)}, got {backend!r}.")
    return StructuredOutputsConfig(**given)
