"""What each kind of constraint means, written as one grammar for llguidance."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headrace.core.structured import StructuredOutputsParams
from headrace.core.vocabulary import Vocabulary
from headrace.grammar.ebnf import ebnf_to_lark, is_ebnf
from headrace.grammar.errors import BadConstraint
from headrace.grammar.json_schema import prepared
from headrace.grammar.notation import Notation
from headrace.grammar.structural_tag import StructuralTag

LONGEST = 1 << 19
"""Most characters of a constraint."""

_WHITESPACE = r" |\r?\n( {0,32}|\t{0,8})"
"""What may stand between the tokens of JSON: what printers put there. In more than that, models lose themselves."""


def translate(params: StructuredOutputsParams, vocabulary: Vocabulary) -> str:
    """The grammar of whole answers, in llguidance's notation. Raises `BadConstraint`."""
    return _Translation(params, vocabulary).grammar()


class _Translation:
    def __init__(self, params: StructuredOutputsParams, vocabulary: Vocabulary) -> None:
        self._params = params
        self._notation = Notation(vocabulary)

    def grammar(self) -> str:
        answer = self._answer()
        if (marker := self._params.starts_after) is not None:
            notation = self._notation
            answer = f"{notation.until(marker)} {answer} | {notation.without([marker])}"
        whole = self._notation.whole(answer)
        if len(whole) > LONGEST:
            raise BadConstraint(f"too large: written as a grammar it has {len(whole)} characters, at most {LONGEST}.")
        return whole

    def _answer(self) -> str:
        params, notation = self._params, self._notation
        match params:
            case StructuredOutputsParams(json=schema) if schema is not None:
                return notation.json(self._schema(read_object(schema, "the schema")))
            case StructuredOutputsParams(regex=pattern) if pattern is not None:
                return notation.expression(pattern)
            case StructuredOutputsParams(choice=choice) if choice is not None:
                return notation.one_of(choice)
            case StructuredOutputsParams(grammar=text) if text is not None:
                return notation.part(ebnf_to_lark(text) if is_ebnf(text) else text)
            case StructuredOutputsParams(structural_tag=tag) if tag is not None:
                return StructuralTag(notation, self._schema).term(read_object(tag, "the structural tag"))
            case _:
                return notation.json(self._schema({"type": "object"}))

    def _schema(self, schema: Mapping[str, Any]) -> dict[str, Any]:
        params = self._params
        if params.disable_any_whitespace or params.whitespace_pattern == "":
            whitespace: dict[str, Any] = {"whitespace_flexible": False}
        else:
            whitespace = {"whitespace_pattern": params.whitespace_pattern or _WHITESPACE}
        return prepared(schema, closed=params.disable_additional_properties, whitespace=whitespace)


def read_object(given: str | Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """The object, from its text if need be. Raises `BadConstraint` unless it is one."""
    if not isinstance(given, str):
        return given
    if len(given) > LONGEST:
        raise BadConstraint(f"{what} is too large: {len(given)} characters, at most {LONGEST} are allowed.")
    try:
        value = json.loads(given)
    except ValueError as error:
        raise BadConstraint(f"{what} is not valid JSON: {error}.") from None
    except RecursionError:
        raise BadConstraint(f"{what} is nested too deep.") from None
    if not isinstance(value, dict):
        raise BadConstraint(f"{what} must be a JSON object, got {type(value).__name__}.")
    return value
