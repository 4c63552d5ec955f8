"""What a tool parser is, and what else is to be known of the format in which a model writes its calls."""

from __future__ import annotations

import secrets
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from headrace.text.tools.events import ToolEvent

Tag = Mapping[str, Any]
"""A form that a call must have, as structural tags write it: `begin`, `content`, `end`."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that the model may call. `parameters` is the JSON schema of its arguments; None: it has none."""

    name: str
    parameters: Mapping[str, Any] | None = None
    strict: bool = False


class ToolParser(Protocol):
    """Finds the calls in one answer. Any split of the answer into pieces gives the same events, joined."""

    def push(self, text: str) -> list[ToolEvent]:
        """What more text tells. Text that may be part of a marker waits for what follows."""

    def finish(self) -> list[ToolEvent]:
        """What is left when no more text comes."""


def long_id(name: str, index: int) -> str:
    return f"chatcmpl-tool-{secrets.token_hex(8)}"


def short_id(name: str, index: int) -> str:
    """Nine letters and digits, the only ids that Mistral's chat templates take."""
    return "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(9))


def numbered_id(name: str, index: int) -> str:
    """As Kimi K2 itself writes it."""
    return f"functions.{name}:{index}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolFormat:
    """How one family of models writes calls.

    `parser` makes a parser for one answer; it is told the functions that may be called.
    `openings` are the markers that can begin a call: where one comes while the model is thinking, the thinking is over.
    `special_tokens`: markers may be special tokens of the tokenizer, so that text must be decoded with those shown.
    `new_id` makes the id of a call to which the model gives none, from the name and the place among the calls.
    `tags` are what calls of these functions can be held to, each with `trigger` as its beginning, or, if that is None,
    with one of its own that no other text has; None where the format cannot be constrained.
    """

    parser: Callable[[Sequence[Function]], ToolParser]
    openings: tuple[str, ...] = ()
    special_tokens: bool = False
    new_id: Callable[[str, int], str] = long_id
    tags: Callable[[Sequence[Function]], Sequence[Tag]] | None = None
    trigger: str | None = None
