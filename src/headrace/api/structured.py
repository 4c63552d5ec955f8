"""The form of answers, as bodies of several families ask for it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from pydantic import Field

from headrace.api.record import Record
from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams


class StructuredOutputs(Record):
    """Exactly one kind of constraint, and its options."""

    json_schema: str | dict[str, Any] | None = Field(None, alias="json")
    regex: str | None = None
    choice: list[str] | None = None
    grammar: str | None = None
    json_object: bool | None = None
    structural_tag: str | dict[str, Any] | None = None
    whitespace_pattern: str | None = None
    disable_any_whitespace: bool = False
    disable_additional_properties: bool = False
    starts_after: str | None = None
    """The answer is free up to and including this text, such as the end of the reasoning."""
    parameter: str = Field("structured_outputs", max_length=64)
    """The name that errors give it."""

    def params(self) -> StructuredOutputsParams:
        """Raises `BadRequest` unless it is of exactly one kind."""
        return StructuredOutputsParams(**self.model_dump(by_alias=True, include=set(StructuredOutputs.model_fields)))


class ConstraintFields(Record):
    """The fields by which a request constrains its answers: today's, and those of older releases."""

    structured_outputs: StructuredOutputs | None = None
    guided_json: str | dict[str, Any] | None = None
    guided_regex: str | None = None
    guided_choice: list[str] | None = None
    guided_grammar: str | None = None
    guided_whitespace_pattern: str | None = None
    guided_decoding_backend: str | None = None
    """Once chose between several; there is one."""

    def constraint(self) -> StructuredOutputsParams | None:
        """What they ask for; None if answers are free. Raises `BadRequest`, naming the field."""
        given: dict[str, Any] = {
            kind: value
            for kind, value in (
                ("json", self.guided_json),
                ("regex", self.guided_regex),
                ("choice", self.guided_choice),
                ("grammar", self.guided_grammar),
            )
            if value is not None
        }
        if self.structured_outputs is None:
            if not given:
                return None
            return self.with_whitespace(StructuredOutputsParams(**given, parameter=f"guided_{next(iter(given))}"))
        if given:
            name = f"guided_{next(iter(given))}"
            raise BadRequest(
                f"structured_outputs and {name} say the same in two ways; give one of them.", parameter=name
            )
        return self.with_whitespace(self.structured_outputs.params())

    def with_whitespace(self, constraint: StructuredOutputsParams) -> StructuredOutputsParams:
        """`constraint` with the pattern that stands beside it, if it has none of its own."""
        pattern = self.guided_whitespace_pattern
        if pattern is None or constraint.whitespace_pattern is not None:
            return constraint
        return replace(constraint, whitespace_pattern=pattern)


CONSTRAINT_NAMES = frozenset(ConstraintFields.model_fields)
