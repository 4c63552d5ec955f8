"""Bases of all bodies. Types and coercions only: ranges belong to `SamplingParams`, limits to the service.

A null means "not given" everywhere but in the fields of `NULL_REFUSED`. Fields that a body does not declare are kept in
`model_extra`; `fields.py` decides what becomes of them.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, PlainValidator, WithJsonSchema, model_validator


class Record(BaseModel):
    """Base of all objects in a request."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)
    NULL_REFUSED: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _drop_nulls(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        return {name: value for name, value in data.items() if value is not None or name in cls.NULL_REFUSED}


class Body(Record):
    """Base of all bodies. `model` null, absent or empty means the model that is served."""

    model: str | None = None


class StreamOptions(Record):
    include_usage: bool = False
    continuous_usage_stats: bool = False


def are_token_ids(items: list[Any]) -> bool:
    """Whether all items are integers and none is negative; so of an empty list."""
    # Prompts can hold a million ids: no Python loop. A bool has a type of its own.
    return set(map(type, items)) <= {int} and min(items, default=0) >= 0


def _token_ids(value: Any) -> list[int]:
    if isinstance(value, list) and are_token_ids(value):
        return value
    raise ValueError("must be a list of token ids, which are integers of at least 0")


TOKEN_IDS_SCHEMA = {"type": "array", "items": {"type": "integer", "minimum": 0}}
TokenIds = Annotated[list[int], PlainValidator(_token_ids), WithJsonSchema(TOKEN_IDS_SCHEMA)]
