"""Structural tags: free text with parts in it that follow a schema, such as calls of tools.

Two shapes are in use. The older one lists `structures`, each a `begin`, a `schema` and an `end`, and the `triggers` at
which free text must turn into one of them. The newer one has a `format`, built from other formats.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headrace.grammar.ebnf import ebnf_to_lark, is_ebnf
from headrace.grammar.errors import BadConstraint
from headrace.grammar.json_schema import DEEPEST
from headrace.grammar.notation import Notation

_FORMATS = (
    *("const_string", "json_schema", "regex", "grammar", "any_text"),
    *("sequence", "or", "tag", "triggered_tags", "tags_with_separator"),
)


class StructuralTag:
    """Writes a structural tag's terms in a notation. `read_schema` makes a JSON schema ready for it."""

    def __init__(self, notation: Notation, read_schema: Callable[[Mapping[str, Any]], dict[str, Any]]) -> None:
        self._notation = notation
        self._read_schema = read_schema

    def term(self, given: Mapping[str, Any]) -> str:
        """Raises `BadConstraint`, naming what is missing or not supported."""
        if "format" in given:
            return self._format(_object(given, "format"), is_last=True, level=1)
        return self._format(_as_format(given), is_last=True, level=1)

    def _format(self, given: Mapping[str, Any], *, is_last: bool, level: int) -> str:
        """`is_last`: nothing comes after it, so it may end with free text."""
        if level > DEEPEST:
            raise BadConstraint(f"the structural tag is nested too deep: at most {DEEPEST} levels are allowed.")
        notation = self._notation
        match given.get("type"):
            case "const_string":
                return notation.literal(_text(given, "value"))
            case "json_schema":
                return self._json(given)
            case "regex":
                return notation.expression(_text(given, "pattern"))
            case "grammar":
                text = _text(given, "grammar")
                return notation.part(ebnf_to_lark(text) if is_ebnf(text) else text)
            case "any_text" if is_last:
                return notation.without(_texts(given, "excludes") if "excludes" in given else ())
            case "sequence":
                *inner, last = _objects(given, "elements")
                terms = [self._format(element, is_last=False, level=level + 1) for element in inner]
                return " ".join([*terms, self._format(last, is_last=is_last, level=level + 1)])
            case "or":
                elements = _objects(given, "elements")
                return notation.rule(
                    " | ".join(self._format(element, is_last=is_last, level=level + 1) for element in elements)
                )
            case "tag":
                return " ".join([notation.literal(_text(given, "begin")), self._rest_of_tag(given, level)])
            case "triggered_tags" if is_last:
                return self._triggered(given, level)
            case "tags_with_separator":
                return self._separated(given, level)
            case "any_text" | "triggered_tags" as kind:
                raise BadConstraint(f"the structural tag has {kind} before its end, where only a tag may hold it.")
            case kind:
                raise BadConstraint(
                    f"the structural tag has a format of type {kind!r}; known are {', '.join(_FORMATS)}."
                )

    def _json(self, given: Mapping[str, Any]) -> str:
        if (style := given.get("style", "json")) != "json":
            raise BadConstraint(f"the structural tag has JSON in the style {style!r}; only 'json' is supported.")
        return self._notation.json(self._read_schema(_object(given, "json_schema")))

    def _rest_of_tag(self, tag: Mapping[str, Any], level: int) -> str:
        """What follows `begin`: the content and the end."""
        notation = self._notation
        ends = [tag["end"]] if isinstance(tag.get("end"), str) else _texts(tag, "end")
        content = _object(tag, "content")
        if content.get("type") == "any_text" and all(ends):
            return notation.rule(" | ".join(map(notation.until, ends)))
        inner = self._format(content, is_last=False, level=level + 1)
        return notation.rule(" | ".join(f"{inner} {notation.literal(end)}" for end in ends))

    def _triggered(self, given: Mapping[str, Any], level: int) -> str:
        """Free text; wherever a trigger comes up in it, one of the tags that begin with that trigger."""
        notation = self._notation
        triggers = _texts(given, "triggers")
        tags = _objects(given, "tags")
        units = []
        for trigger in triggers:
            rests = [
                f"{notation.literal(begin.removeprefix(trigger))} {self._rest_of_tag(tag, level)}"
                for tag in tags
                if (begin := _text(tag, "begin")).startswith(trigger)
            ]
            if rests:
                units.append(f"{notation.until(trigger)} {notation.rule(' | '.join(rests))}")
        for tag in tags:
            if not _text(tag, "begin").startswith(tuple(triggers)):
                raise BadConstraint(f"no trigger is the beginning of the structural tag {tag['begin']!r}.")
        unit = notation.rule(" | ".join(units))
        tail = notation.without(triggers)
        at_least_one = _flag(given, "at_least_one")
        if _flag(given, "stop_after_first"):
            return unit if at_least_one else notation.rule(f"{unit} | {tail}")
        return notation.rule(f"{unit}{'+' if at_least_one else '*'} {tail}")

    def _separated(self, given: Mapping[str, Any], level: int) -> str:
        """Tags one after the other, with nothing but the separator between them."""
        notation = self._notation
        tags = _objects(given, "tags")
        tag = notation.rule(
            " | ".join(self._format({"type": "tag", **one}, is_last=False, level=level) for one in tags)
        )
        at_least_one = _flag(given, "at_least_one")
        if _flag(given, "stop_after_first"):
            return tag if at_least_one else f"{tag}?"
        separator = notation.literal(_text(given, "separator"))
        several = notation.rule(f"{tag} ({separator} {tag})*")
        return several if at_least_one else f"{several}?"


def _as_format(given: Mapping[str, Any]) -> dict[str, Any]:
    """The older shape in terms of the newer one."""
    if "structures" not in given:
        raise BadConstraint("a structural tag needs a format, or structures and triggers.")
    tags = [
        {
            "begin": _text(structure, "begin"),
            "content": {"type": "json_schema", "json_schema": _object(structure, "schema")},
            "end": _text(structure, "end"),
        }
        for structure in _objects(given, "structures")
    ]
    return {"type": "triggered_tags", "triggers": _texts(given, "triggers"), "tags": tags}


def _text(given: Mapping[str, Any], name: str) -> str:
    if not isinstance(value := given.get(name), str):
        raise BadConstraint(f"the structural tag needs {name} to be a text.")
    return value


def _texts(given: Mapping[str, Any], name: str) -> Sequence[str]:
    value = given.get(name)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(text, str) and text for text in value):
        raise BadConstraint(f"the structural tag needs {name} to be a list of at least one text, none of them empty.")
    return value


def _object(given: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    if not isinstance(value := given.get(name), Mapping):
        raise BadConstraint(f"the structural tag needs {name} to be an object.")
    return value


def _objects(given: Mapping[str, Any], name: str) -> Sequence[Mapping[str, Any]]:
    value = given.get(name)
    if not isinstance(value, list | tuple) or not value or not all(isinstance(one, Mapping) for one in value):
        raise BadConstraint(f"the structural tag needs {name} to be a list of at least one object.")
    return value


def _flag(given: Mapping[str, Any], name: str) -> bool:
    if not isinstance(value := given.get(name, False), bool):
        raise BadConstraint(f"the structural tag needs {name} to be true or false.")
    return value
