"""Writes a grammar in the notation that llguidance reads: Lark, with JSON schemas and special tokens as terms.

Notation: https://github.com/guidance-ai/llguidance/blob/main/docs/syntax.md.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import llguidance

from headrace.core.vocabulary import Vocabulary
from headrace.grammar.errors import BadConstraint

_OPTIONS = '%llguidance {"no_forcing": true}'
"""Every way to spell a text in tokens is allowed, not only the tokenizer's own: the model chooses as it does without a
grammar, and no long text has to be tokenized between two tokens."""

ANYTHING = "/(?s:.*)/"
"""Any text, line breaks included."""


class Notation:
    """The rules of one grammar. Terms, which the methods return, may be joined by spaces or by ` | `."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._rules: list[str] = []
        self._parts: list[str] = []

    def rule(self, body: str) -> str:
        """Whatever follows `body`, terms that may hold one another."""
        return self._define(f"r{len(self._rules)}", body)

    def terminal(self, body: str) -> str:
        """One regular expression: `body` holds terminals, texts and expressions, joined as terms are."""
        return self._define(f"T{len(self._rules)}", body)

    def until(self, marker: str) -> str:
        """Any text up to and including the first `marker`, which may be a special token."""
        if (token_id := self._vocabulary.special(marker)) is not None:
            return self.rule(f"{self.without([marker])} <[{token_id}]>")
        name = f"r{len(self._rules)}"
        self._rules.append(f"{name}[lazy]: {ANYTHING} {_quoted(marker)}")
        return self.rule(f"{self._spans([marker])} {name}")

    def without(self, markers: Sequence[str] = ()) -> str:
        """Any text in which none of the `markers` occurs, texts or special tokens."""
        return self.rule(f"{self._spans(markers)} {self._text_without(markers)}?")

    def _spans(self, markers: Sequence[str]) -> str:
        """Text without `markers` as far as its last special token. Those that end an answer are not in it."""
        barred = {*self._vocabulary.eos_ids, *map(self._vocabulary.special, markers)}
        special = [token_id for token_id in self._vocabulary.special_ids if token_id not in barred]
        if not special:
            return ""
        # Never two texts in a row: a marker could hide in both together.
        return self.rule(f"({self._text_without(markers)}? <[{_ranges(special)}]>)*")

    def _text_without(self, markers: Sequence[str]) -> str:
        banned = [_quoted(marker) for marker in markers if self._vocabulary.special(marker) is None]
        if not banned:
            return self.terminal("/(?s:.+)/")
        return self.terminal(f"/(?s:.+)/ & ~({ANYTHING} ({' | '.join(banned)}) {ANYTHING})")

    def literal(self, text: str) -> str:
        """This text; where it holds the text of a special token, that token."""
        special = self._vocabulary.special_in(text)
        pieces = re.split("|".join(f"({re.escape(one)})" for one in special), text) if special else [text]
        terms = [f"<[{special[piece]}]>" if piece in special else _quoted(piece) for piece in pieces if piece]
        return " ".join(terms) or '""'

    def one_of(self, texts: Iterable[str]) -> str:
        return self.rule(self.terminal(" | ".join(map(_quoted, dict.fromkeys(texts)))))

    def expression(self, pattern: str) -> str:
        """What a regular expression matches as a whole."""
        return self.rule(self.terminal(f"/{llguidance.regex_to_lark(_unanchored(pattern))}/"))

    def json(self, schema: Mapping[str, Any]) -> str:
        try:
            return self.rule(f"%json {json.dumps(schema, allow_nan=False)}")
        except (TypeError, ValueError, RecursionError) as error:
            raise BadConstraint(f"the schema cannot be written as JSON: {error}.") from None

    def part(self, lark: str) -> str:
        """What a whole grammar in Lark describes, whose rules have names of their own."""
        self._parts.append(lark)
        return f"@part{len(self._parts)}"

    def whole(self, start: str) -> str:
        """The grammar that begins with the term `start`."""
        lark = "\n".join([_OPTIONS, f"start: {start}", *self._rules])
        grammars = [{"lark_grammar": lark}]
        grammars += [{"name": f"part{number}", "lark_grammar": part} for number, part in enumerate(self._parts, 1)]
        return json.dumps({"grammars": grammars})

    def _define(self, name: str, body: str) -> str:
        self._rules.append(f"{name}: {body}")
        return name


def _ranges(ids: Sequence[int]) -> str:
    """Ascending ids, those in a row by the first and the last: models can have thousands of control tokens."""
    ranges: list[list[int]] = []
    for token_id in ids:
        if ranges and ranges[-1][1] == token_id - 1:
            ranges[-1][1] = token_id
        else:
            ranges.append([token_id, token_id])
    return ",".join(f"{first}-{last}" for first, last in ranges)


def _quoted(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadConstraint(f"a text holds half of a surrogate pair at character {error.start}.") from None
    return json.dumps(text)


def _unanchored(pattern: str) -> str:
    """`pattern` without what says again that the whole output is meant."""
    pattern = re.sub(r"^(\^|\\A)", "", pattern)
    if (match := re.search(r"(?<!\\)(\\\\)*(\$|\\[Zz])$", pattern)) is not None:
        pattern = pattern[: match.start(2)]
    return pattern
