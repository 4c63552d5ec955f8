"""llguidance's objects, made the one way we use them."""

from __future__ import annotations

import re
from collections.abc import Sequence

import llguidance
from llguidance import TokenizerWrapper

from headrace.core.vocabulary import Vocabulary

_PLACE = re.compile(r"^at \d+\(\d+\): (?=failed to compile|invalid regex)(failed to compile JSON schema: )?")
"""Where in a grammar that we have written ourselves; what stands there is told anyway."""

_DETAIL = re.compile(r"^error: (.*)$", re.MULTILINE)

_SHOWN = 500
"""Most characters of a complaint's first line, which may quote a whole expression."""

LIMITS = llguidance.LLParserLimits(
    max_items_in_row=2000,
    initial_lexer_fuel=1_000_000,
    step_lexer_fuel=200_000,
    step_max_items=5_000,
    max_lexer_states=50_000,
    max_grammar_size=300_000,
    verbose_errors=False,
)
"""What a grammar may cost. Those that people write need a hundredth of it. One that is made to hurt has steps of 50 ms
until it needs more, and its answer ends."""


def build_tokenizer(vocabulary: Vocabulary, vocab_size: int) -> llguidance.LLTokenizer:
    """The vocabulary as a tree of bytes, for masks of `vocab_size` tokens. Takes 0.1 s for 50 000 tokens."""
    eos_ids = [token_id for token_id in vocabulary.eos_ids if token_id < vocab_size]
    return llguidance.LLTokenizer(TokenizerWrapper(_Tokens(vocabulary, vocab_size)), eos_token=eos_ids)


def new_matcher(tokenizer: llguidance.LLTokenizer, grammar: str) -> llguidance.LLMatcher:
    """At the beginning of an answer. Never raises: what is wrong with the grammar is found in the matcher."""
    return llguidance.LLMatcher(tokenizer, grammar, log_level=0, limits=LIMITS)


def complaint(matcher: llguidance.LLMatcher) -> str | None:
    """What is wrong with a matcher, in one line; None if nothing is."""
    if not matcher.is_error():
        return None
    text = matcher.get_error()
    if text.startswith("NoExtension"):
        return "no answer can meet it."
    first = _PLACE.sub("", text.partition("\n")[0].strip())
    if len(first) > _SHOWN:
        first = f"{first[:_SHOWN]}…"
    detail = _DETAIL.search(text)
    return first if detail is None else f"{first} {detail[1]}"


class _Tokens:
    """What llguidance reads a vocabulary from."""

    bos_token_id = None

    def __init__(self, vocabulary: Vocabulary, vocab_size: int) -> None:
        # Many models have more outputs than tokens, to have a round number; some tokenizers know more tokens.
        unused = max(vocab_size - len(vocabulary.tokens), 0)
        self.tokens = [*vocabulary.tokens[:vocab_size], *[b""] * unused]
        self.eos_token_id = vocabulary.eos_ids[0]
        self.special_token_ids = [token_id for token_id in vocabulary.special_ids if token_id < vocab_size]

    def __call__(self, text: bytes) -> Sequence[int]:
        """Tokens for a text that a grammar leaves no choice about: none, as our grammars leave how to spell it open."""
        return []
