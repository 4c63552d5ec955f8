"""`response_format`, in which a completion and a chat ask for the form of their answers."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from headrace.api.record import Record
from headrace.api.structured import ConstraintFields
from headrace.core.errors import BadRequest
from headrace.core.structured import StructuredOutputsParams


class JsonSchemaFormat(Record):
    """`schema` is enforced whatever `strict` says."""

    name: str | None = None
    description: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Record):
    """OpenAI's own way: `type` is text, json_object, json_schema or structural_tag, with the fields of its kind."""

    type: str
    json_schema: JsonSchemaFormat | None = None
    format: dict[str, Any] | None = None
    structures: list[dict[str, Any]] | None = None
    triggers: list[str] | None = None


def constraint(response_format: ResponseFormat | None, fields: ConstraintFields) -> StructuredOutputsParams | None:
    """What a body asks for; None if its answers are free. A `response_format` other than text wins over the `fields`.

    Raises `BadRequest`, naming the field.
    """
    asked = None if response_format is None else _of_format(response_format)
    return fields.constraint() if asked is None else fields.with_whitespace(asked)


def _of_format(asked: ResponseFormat) -> StructuredOutputsParams | None:
    name = "response_format"
    match asked:
        case ResponseFormat(type="text"):
            return None
        case ResponseFormat(type="json_object"):
            return StructuredOutputsParams(json_object=True, parameter=name)
        case ResponseFormat(type="json_schema", json_schema=JsonSchemaFormat(schema_=schema)) if schema is not None:
            return StructuredOutputsParams(json=schema, parameter=name)
        case ResponseFormat(type="json_schema"):
            missing = "json_schema" if asked.json_schema is None else "json_schema.schema"
            raise BadRequest(f"response_format of type json_schema needs {missing}.", parameter=name)
        case ResponseFormat(type="structural_tag"):
            parts = {"format": asked.format, "structures": asked.structures, "triggers": asked.triggers}
            tag = {part: value for part, value in parts.items() if value is not None}
            return StructuredOutputsParams(structural_tag=tag, parameter=name)
    raise BadRequest(
        f"response_format must be of type text, json_object, json_schema or structural_tag, got {asked.type!r}.",
        parameter=name,
    )
