"""Fields of a body that the schema does not declare: refused if we know what they mean, else noted once."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from headrace.api.openai.schema import Record
from headrace.core.errors import BadRequest, Unsupported

logger = logging.getLogger(__name__)

_MOST_NAMES = 1000
_MOST_CHARS = 100


def _never(_: Any) -> bool:
    return False


def _empty(value: Any) -> bool:
    return not value


def _one_of(*values: Any) -> Callable[[Any], bool]:
    return lambda value: value in values


def _plain_text(value: Any) -> bool:
    return isinstance(value, dict) and value.get("type") == "text"


NOT_IMPLEMENTED: dict[str, Callable[[Any], bool]] = {
    "response_format": _plain_text,
    "structured_outputs": _never,
    "guided_json": _never,
    "guided_regex": _never,
    "guided_choice": _never,
    "guided_grammar": _never,
    "guided_decoding_backend": _never,
    "guided_whitespace_pattern": _never,
    "tools": _never,
    "tool_choice": _one_of("none"),
    "use_beam_search": _one_of(False),
    "length_penalty": _one_of(1, 1.0),
    "prompt_embeds": _never,
    "suffix": _never,
    "kv_transfer_params": _empty,
    "ec_transfer_params": _empty,
    "vllm_xargs": _empty,
    "logprob_token_ids": _never,
    "stream_interval": _one_of(1),
    "repetition_detection": _never,
    "thinking_token_budget": _one_of(-1),
    "include_reasoning": _one_of(True),
    "media_io_kwargs": _empty,
    "mm_processor_kwargs": _empty,
}
"""Parameters whose meaning is known and not implemented, with the values that would change nothing."""


class UndeclaredFields:
    """Judges what a body holds beyond its schema. One for a server, so that a name is logged once."""

    def __init__(self, *, strict: bool) -> None:
        self._strict = strict
        self._logged: set[str] = set()

    def check(self, record: Record, where: str = "") -> None:
        """Raises `Unsupported` for what is not implemented; under strict rules `BadRequest` for what nobody knows."""
        for name, value in record:
            if isinstance(value, Record):
                self.check(value, f"{where}{name}.")
        for name, value in (record.model_extra or {}).items():
            harmless = NOT_IMPLEMENTED.get(name)
            if harmless is None:
                self._unknown(where + name)
            elif not harmless(value):
                raise Unsupported(f"{name} is not supported by this server.", parameter=name, value=value)

    def _unknown(self, name: str) -> None:
        if self._strict:
            raise BadRequest(f"Unknown field {name[:_MOST_CHARS]!r}.", parameter=name[:_MOST_CHARS])
        # Names come from callers: what is remembered and written of them is bounded.
        if name not in self._logged and len(self._logged) < _MOST_NAMES:
            self._logged.add(name)
            logger.warning("request field %.*r is unknown and has no effect", _MOST_CHARS, name)
