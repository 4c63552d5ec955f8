"""Fields of a body that its schema does not declare: refused if we know what they mean, else noted once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from headrace.api.record import Record
from headrace.core.errors import BadRequest, Unsupported

logger = logging.getLogger(__name__)

Harmless = Callable[[Any], bool]
"""Whether a value asks for nothing but what happens anyway."""

_MOST_NAMES = 1000
_MOST_CHARS = 100


def never(_: Any) -> bool:
    return False


def empty(value: Any) -> bool:
    return not value


def one_of(*values: Any) -> Harmless:
    return lambda value: value in values


INFRASTRUCTURE: Mapping[str, Harmless] = {
    "kv_transfer_params": empty,
    "ec_transfer_params": empty,
    "vllm_xargs": empty,
}
"""Fields for parts of a fleet that this server does not have."""


class UndeclaredFields:
    """Judges what a body holds beyond its schema. One for a family, so that a name is logged once.

    `refused` are parameters whose meaning is known and not implemented, with the values that would change nothing.
    """

    def __init__(self, refused: Mapping[str, Harmless], *, strict: bool) -> None:
        self._refused = refused
        self._strict = strict
        self._logged: set[str] = set()

    def check(self, record: Record, where: str = "") -> None:
        """Raises `Unsupported` for what is not implemented; under strict rules `BadRequest` for what nobody knows."""
        for name, value in record:
            if isinstance(value, Record):
                self.check(value, f"{where}{name}.")
        for name, value in (record.model_extra or {}).items():
            harmless = self._refused.get(name)
            if harmless is None:
                self.unknown(where + name)
            elif not harmless(value):
                raise Unsupported(f"{name} is not supported by this server.", parameter=name, value=value)

    def unknown(self, name: str) -> None:
        """As `check` does with a name that nobody knows."""
        if self._strict:
            raise BadRequest(f"Unknown field {name[:_MOST_CHARS]!r}.", parameter=name[:_MOST_CHARS])
        # Names come from callers: what is remembered and written of them is bounded.
        if name not in self._logged and len(self._logged) < _MOST_NAMES:
            self._logged.add(name)
            logger.warning("request field %.*r is unknown and has no effect", _MOST_CHARS, name)
