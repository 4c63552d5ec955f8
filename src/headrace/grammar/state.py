"""Where one answer stands in its grammar."""

from __future__ import annotations

from collections import OrderedDict

import llguidance

from headrace.core.vocabulary import Vocabulary
from headrace.grammar.backend import build_tokenizer, complaint, new_matcher
from headrace.grammar.errors import BadConstraint

_KEPT = 32
"""Grammars that are kept read, for the next answers that must follow them."""


class GrammarState:
    """Belongs to one sequence, and is moved on when that gets a token, by the scheduler's commit alone.

    `ended`: the answer is complete, and its last token said so.
    """

    def __init__(self, matcher: llguidance.LLMatcher, eos_ids: frozenset[int]) -> None:
        self.matcher = matcher
        self.eos_ids = eos_ids
        self.ended = False

    @property
    def problem(self) -> str | None:
        """Why it cannot be followed any further: it has been left, or costs too much. None as long as it can."""
        return complaint(self.matcher)

    def advance(self, token_id: int) -> bool:
        """Take a token that the answer has got. False, and there is a `problem`, if it does not belong there."""
        self.ended = token_id in self.eos_ids
        return self.matcher.consume_token(token_id)

    def fork(self) -> GrammarState:
        """An equal state for another answer."""
        copy = GrammarState(self.matcher.deep_copy(), self.eos_ids)
        copy.ended = self.ended
        return copy


class GrammarReader:
    """Reads grammars for one vocabulary. One thread uses it."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._tokenizer = build_tokenizer(vocabulary, vocab_size)
        self._eos_ids = frozenset(self._tokenizer.eos_tokens)
        self._fresh: OrderedDict[str, GrammarState] = OrderedDict()

    def read(self, grammar: str) -> GrammarState:
        """The state of an answer that has not begun. Raises `BadConstraint` if the grammar is not sound."""
        fresh = self._fresh.get(grammar)
        if fresh is None:
            fresh = GrammarState(new_matcher(self._tokenizer, grammar), self._eos_ids)
            if (problem := complaint(fresh.matcher)) is not None:
                raise BadConstraint(problem)
            self._fresh[grammar] = fresh
            if len(self._fresh) > _KEPT:
                self._fresh.popitem(last=False)
        self._fresh.move_to_end(grammar)
        return fresh.fork()
