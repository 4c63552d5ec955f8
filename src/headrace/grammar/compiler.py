"""Refuses constraints that no answer can meet, or that cost too much, before anything is generated."""

from __future__ import annotations

import llguidance

from headrace.core.structured import StructuredOutputsParams
from headrace.core.vocabulary import Vocabulary
from headrace.grammar.backend import build_tokenizer, complaint, new_matcher
from headrace.grammar.errors import BadConstraint
from headrace.grammar.translate import translate


class GrammarCompiler:
    """Compiles constraints for one vocabulary."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._vocabulary = vocabulary
        self._tokenizer = build_tokenizer(vocabulary, vocab_size)

    def compile(self, params: StructuredOutputsParams) -> str:
        """The grammar of the answers that meet the constraint. Raises `BadRequest`, saying why there can be none.

        Most constraints take milliseconds; there are some that would take hours.
        """
        try:
            grammar = translate(params, self._vocabulary)
            _check(self._tokenizer, grammar)
        except BadConstraint as error:
            raise params.refusal(str(error)) from None
        return grammar


def _check(tokenizer: llguidance.LLTokenizer, grammar: str) -> None:
    """Raises `BadConstraint` unless an answer can be begun."""
    matcher = new_matcher(tokenizer, grammar)
    begins = complaint(matcher) is None and matcher.compute_bitmask().strip(b"\0")
    if (problem := complaint(matcher)) is not None:
        raise BadConstraint(problem)
    if not begins:
        raise BadConstraint("no answer can meet it.")
