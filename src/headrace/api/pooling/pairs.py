"""Queries and documents, in the many spellings that clients send."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.pooling.schema import RerankRequest, ScoreRequest
from headrace.core.errors import BadRequest
from headrace.service.parts import read_parts, text_of

_SPELLINGS = (("text_1", "text_2"), ("queries", "documents"), ("queries", "items"), ("data_1", "data_2"))


def score_pairs(body: ScoreRequest, model_name: str) -> tuple[list[str], list[str]]:
    """Queries, one for all or one for each of the documents, and those.

    Raises `BadRequest`, naming the field, if the body has not just one pair of fields, or numbers that do not match.
    """
    fields = dict(body)
    given = {name for pair in _SPELLINGS for name in pair if fields[name] is not None}
    names = next((pair for pair in _SPELLINGS if given == set(pair)), None)
    if names is None:
        spellings = "; ".join(f"{first} and {second}" for first, second in _SPELLINGS)
        raise BadRequest(
            f"Exactly one of these pairs must be given: {spellings}.", parameter=min(given, default="text_1")
        )
    first, second = names
    queries, documents = _texts(fields[first], first, model_name), _texts(fields[second], second, model_name)
    if len(queries) not in (1, len(documents)):
        raise BadRequest("Input lengths must be either 1:1, 1:N or N:N", parameter=first, value=len(queries))
    return queries, documents


def rerank_pair(body: RerankRequest, model_name: str) -> tuple[str, list[str]]:
    """The query and the documents."""
    return _text(body.query, "query", "query", model_name), _texts(body.documents, "documents", model_name)


def _texts(value: Any, field: str, model_name: str) -> list[str]:
    if not isinstance(value, list):
        return [_text(value, field, field, model_name)]
    if not value:
        raise BadRequest(f"{field} must hold at least one text.", parameter=field, value=value)
    return [_text(element, f"{field}[{index}]", field, model_name) for index, element in enumerate(value)]


def _text(element: Any, place: str, field: str, model_name: str) -> str:
    if isinstance(element, str):
        return element
    if isinstance(element, Mapping):
        if isinstance(element.get("text"), str):
            return element["text"]
        if "content" in element:
            return _content(element["content"], f"{place}.content", field, model_name)
    raise BadRequest(f"{place} must be a text, or an object with a text or a content.", parameter=field)


def _content(content: Any, place: str, field: str, model_name: str) -> str:
    try:
        return text_of(read_parts(content, place, model_name))
    except BadRequest as problem:
        raise type(problem)(problem.message, parameter=field, value=problem.value) from None
