"""Where one answer stands in its grammar."""

from __future__ import annotations

from collections import OrderedDict, deque

import llguidance

from headrace.core.vocabulary import Vocabulary
from headrace.grammar.backend import build_tokenizer, complaint, new_matcher
from headrace.grammar.errors import BadConstraint

_GRAMMARS = 32
_MATCHERS = 16
"""What is kept for the next answers: so many grammars, and of each so many matchers whose answers are over."""


class GrammarState:
    """Belongs to one sequence, and is moved on when that gets a token, by the scheduler's commit alone.

    `ended`: the answer is complete, and its last token said so.
    """

    def __init__(
        self, matcher: llguidance.LLMatcher, eos_ids: frozenset[int], used: deque[llguidance.LLMatcher]
    ) -> None:
        """`used` gets the matcher when the answer is over."""
        self.matcher = matcher
        self.eos_ids = eos_ids
        self.ended = False
        self._used = used

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
        copy = GrammarState(self.matcher.deep_copy(), self.eos_ids, self._used)
        copy.ended = self.ended
        return copy

    def release(self) -> None:
        """The answer is over. A matcher learns its grammar as it goes: the next answer's tokens are found in half the
        time with one that has been used.
        """
        if self.problem is None:
            self._used.append(self.matcher)


class _Known:
    """A grammar that has been read: a matcher that is never used, to copy from, and those that have been."""

    def __init__(self, matcher: llguidance.LLMatcher, eos_ids: frozenset[int]) -> None:
        self._fresh = matcher
        self._eos_ids = eos_ids
        self._used: deque[llguidance.LLMatcher] = deque(maxlen=_MATCHERS)

    def begin(self) -> GrammarState:
        try:
            matcher = self._used.pop()  # the engine's thread may put some there meanwhile
            matcher.reset()
        except IndexError:
            matcher = self._fresh.deep_copy()
        return GrammarState(matcher, self._eos_ids, self._used)


class GrammarReader:
    """Reads grammars for one vocabulary. One thread uses it."""

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        self._tokenizer = build_tokenizer(vocabulary, vocab_size)
        self._eos_ids = frozenset(self._tokenizer.eos_tokens)
        self._known: OrderedDict[str, _Known] = OrderedDict()

    def read(self, grammar: str) -> GrammarState:
        """The state of an answer that has not begun. Raises `BadConstraint` if the grammar is not sound."""
        known = self._known.get(grammar)
        if known is None:
            matcher = new_matcher(self._tokenizer, grammar)
            if (problem := complaint(matcher)) is not None:
                raise BadConstraint(problem)
            known = self._known[grammar] = _Known(matcher, self._eos_ids)
            if len(self._known) > _GRAMMARS:
                self._known.popitem(last=False)
        self._known.move_to_end(grammar)
        return known.begin()
