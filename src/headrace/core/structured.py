"""What form an answer must have: JSON of a schema, a regular expression, one of some texts, a grammar."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.core.errors import BadRequest

KINDS = ("json", "regex", "choice", "grammar", "json_object", "structural_tag")
"""The fields of which a constraint has exactly one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StructuredOutputsParams:
    """A constraint on the whole answer, of exactly one kind. Raises `BadRequest` for none, several, or a wrong type.

    `json`: a JSON schema, as an object or as text. `regex`: what the whole answer matches. `choice`: the answer is one
    of these. `grammar`: in Lark or in EBNF (`root ::= …`). `json_object`: any JSON object. `structural_tag`: free text
    with parts that follow a schema, as an object or as text.

    Of JSON alone: `whitespace_pattern` is a regular expression for what may stand between its tokens (default: a space,
    or a line break and indentation), `disable_any_whitespace` allows none, and with `disable_additional_properties` an
    object has only the properties that its schema names, unless that says otherwise.

    `starts_after`: the answer is free up to and including the first occurrence of this text, such as the end of the
    reasoning. An answer without it is free. `parameter` is the name that errors give the constraint.
    """

    json: str | Mapping[str, Any] | None = None
    regex: str | None = None
    choice: Sequence[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | Mapping[str, Any] | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    starts_after: str | None = None
    parameter: str = "structured_outputs"

    def __post_init__(self) -> None:
        for name in ("json", "structural_tag"):
            self._check(name, str | Mapping, "a JSON object, or its text")
        for name in ("regex", "grammar", "whitespace_pattern", "starts_after"):
            self._check(name, str, "a text")
        for name in ("json_object", "disable_any_whitespace", "disable_additional_properties"):
            self._check(name, bool, "true or false")
        self._check_choice()
        given = [name for name in KINDS if self._is_given(name)]
        if len(given) > 1:
            raise BadRequest(
                "You can only use one kind of constraints for structured outputs ('json', 'regex' or 'choice'). "
                f"Given: {', '.join(given)}.",
                parameter=self.parameter,
            )
        if not given:
            raise BadRequest(f"{self.parameter} must have one of {', '.join(KINDS)}.", parameter=self.parameter)
        if self.starts_after == "":
            raise self.refusal("starts_after must not be empty.")

    @property
    def kind(self) -> str:
        """The one field of `KINDS` that is given."""
        return next(name for name in KINDS if self._is_given(name))

    def refusal(self, reason: str) -> BadRequest:
        """The error that says why this constraint cannot be met."""
        return BadRequest(f"{self.parameter}: {reason}", parameter=self.parameter)

    def _is_given(self, name: str) -> bool:
        return getattr(self, name) not in (None, False)

    def _check(self, name: str, kind: Any, wanted: str) -> None:
        value = getattr(self, name)
        if value is not None and not isinstance(value, kind):
            raise self.refusal(f"{name} must be {wanted}, got {type(value).__name__}.")

    def _check_choice(self) -> None:
        choice = self.choice
        if choice is None:
            return
        if not isinstance(choice, Sequence) or isinstance(choice, str | bytes) or not choice:
            raise self.refusal("choice must be a list of at least one text.")
        if not all(isinstance(text, str) for text in choice):
            raise self.refusal("choice must be a list of texts.")
