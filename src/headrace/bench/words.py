"""What random prompts are made of: common English words, each of them one token with the space before it.

That is so in the vocabularies of nearly all models, so that a text of n words has n tokens, and a list of n of their
ids is a prompt without control tokens. `one_token_words` finds those for which it holds.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from headrace.bench.errors import BenchError

_TEXT = (
    "the of and to in is that for it as was with be by on not he his but at are this have from or had an they which "
    "one you were her all she there would their we him been has when who will more no if out so said what up its "
    "about into than them can only other new some could time these two may then do first any my now such like our "
    "over man me even most made after also did many before must through back years where much your way well down "
    "should because each just those people how too little state good very make world still own see men work long get "
    "here between both life being under never day same another know while last might us great old year off come since "
    "against go came right used take three states himself few house use during without again place american around "
    "however home small found thought went say part once general high upon school every does got united left number "
    "course war until always away something fact though water less public put think almost hand enough far took head "
    "yet government system better set told nothing night end why called eyes find going look asked later knew point "
    "next city business case group give days"
)
_WORDS = tuple(_TEXT.split())

_FEWEST = 16
"""With fewer words, prompts would begin alike by chance and a prefix cache would answer."""


class Tokenizer(Protocol):
    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]: ...


@dataclass(frozen=True, slots=True)
class Words:
    """Words with their token ids. `ids` is empty where nobody could say: then each word is taken for one token.

    `special_tokens`: how many the tokenizer puts around a text.
    """

    words: tuple[str, ...]
    ids: tuple[int, ...]
    special_tokens: int

    def draw_text(self, count: int, random_source: random.Random) -> str:
        """`count` words, a space before each."""
        return "".join([f" {word}" for word in random_source.choices(self.words, k=count)])

    def draw_ids(self, count: int, random_source: random.Random) -> list[int]:
        return random_source.choices(self.ids, k=count)


def all_words() -> Words:
    """For servers whose tokenizer is unknown."""
    return Words(_WORDS, (), 0)


def one_token_words(tokenizer: Tokenizer) -> Words:
    """Those that are one token. Raises `BenchError` if they are too few, and what the tokenizer raises."""
    found = _one_token(tokenizer, _WORDS)
    if len(found) < _FEWEST:
        raise BenchError("Too few English words are one token in this vocabulary. Take prompts from a file.")
    special_tokens = len(tokenizer.encode(" " + found[0][0])) - 1
    return Words(tuple(word for word, _ in found), tuple(token_id for _, token_id in found), special_tokens)


def _one_token(tokenizer: Tokenizer, words: Sequence[str]) -> list[tuple[str, int]]:
    """As few calls as can be: a tokenizer may be a server far away."""
    ids = tokenizer.encode("".join([f" {word}" for word in words]), add_special_tokens=False)
    if len(ids) == len(words):
        return list(zip(words, ids, strict=True))
    if len(words) == 1:
        return []
    middle = len(words) // 2
    return _one_token(tokenizer, words[:middle]) + _one_token(tokenizer, words[middle:])
