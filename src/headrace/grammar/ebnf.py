"""Grammars in EBNF, as llama.cpp (GBNF) and xgrammar write it, in Lark."""

from __future__ import annotations

import re

from llguidance.gbnf_to_lark import any_to_lark

from headrace.grammar.errors import BadConstraint

_ALTERNATIVE_ON_ITS_OWN_LINE = re.compile(r"\s*\n(?:[ \t]*(?:#[^\n]*)?\n)*[ \t]*\|")
_UNICODE_ESCAPE = re.compile(r"(?<!\\)((?:\\\\)*)\\(?:u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8}))")
_PLAIN = {'"': r"\"", "\\": r"\\", "[": r"\[", "]": r"\]", "\n": r"\n", "\r": r"\r", "\t": r"\t"}


def is_ebnf(text: str) -> bool:
    return "::=" in text


def ebnf_to_lark(text: str) -> str:
    """Raises `BadConstraint`, saying where the grammar breaks."""
    # llguidance's reader wants these written otherwise.
    text = _ALTERNATIVE_ON_ITS_OWN_LINE.sub(" |", text)
    text = _UNICODE_ESCAPE.sub(_character, text)
    try:
        return any_to_lark(text)
    except Exception as error:  # it raises nothing more precise
        raise BadConstraint(f"the grammar is not understood: {error}.") from None


def _character(escape: re.Match[str]) -> str:
    code = int(escape[2] or escape[3], 16)
    if code < 32:
        return f"{escape[1]}\\x{code:02x}"
    try:
        character = chr(code)
        character.encode()
    except ValueError:
        raise BadConstraint(f"the grammar holds {escape[0]}, which is no character.") from None
    return escape[1] + _PLAIN.get(character, character)
