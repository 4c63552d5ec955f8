"""The special tokens that a model puts around a text, or around and between the two texts of a pair."""

from __future__ import annotations

from dataclasses import dataclass

import tokenizers

from headrace.core.errors import BadCheckpoint

_PROBE = "a"


@dataclass(frozen=True, slots=True)
class PairIds:
    """A pair of texts as one input. `type_ids`: for each token, which text the model takes it to be of."""

    ids: list[int]
    type_ids: list[int]


class SpecialFrame:
    """What a tokenizer's post-processor does, for texts whose ids are known and may have to be cut first.

    `single` and `pair` are how many special tokens a text and a pair get; none without `add_special_tokens`.
    """

    def __init__(self, backend: tokenizers.Tokenizer, *, add_special_tokens: bool) -> None:
        """Raises `BadCheckpoint` for a tokenizer that does not keep a text in one piece, and pairs in their order."""
        single = backend.encode(_PROBE, add_special_tokens=add_special_tokens)
        pair = backend.encode(_PROBE, _PROBE, add_special_tokens=add_special_tokens)
        self._before, self._after = _surroundings(single, parts=1)
        self._pair = _surroundings(pair, parts=2)
        self._part_types = _part_types(pair)
        self.single = len(self._before.ids) + len(self._after.ids)
        self.pair = sum(len(special.ids) for special in self._pair)

    def around(self, ids: list[int]) -> list[int]:
        return self._before.ids + ids + self._after.ids

    def around_pair(self, first: list[int], second: list[int]) -> PairIds:
        before, between, after = self._pair
        types = self._part_types
        return PairIds(
            before.ids + first + between.ids + second + after.ids,
            [
                *before.type_ids,
                *[types[0]] * len(first),
                *between.type_ids,
                *[types[1]] * len(second),
                *after.type_ids,
            ],
        )


def _surroundings(encoding: tokenizers.Encoding, *, parts: int) -> list[PairIds]:
    """The special tokens before, between and after the `parts` of a text or pair."""
    specials = [PairIds([], []) for _ in range(parts + 1)]
    seen = 0
    for token, kind, part in zip(encoding.ids, encoding.type_ids, encoding.sequence_ids, strict=True):
        if part is None:
            specials[seen].ids.append(token)
            specials[seen].type_ids.append(kind)
        elif part + 1 in (seen, seen + 1):
            seen = part + 1
        else:
            raise BadCheckpoint("The tokenizer puts the two texts of a pair in another order; that is not supported.")
    if seen != parts:
        raise BadCheckpoint(f"The tokenizer makes no tokens of the text {_PROBE!r}.")
    return specials


def _part_types(encoding: tokenizers.Encoding) -> tuple[int, int]:
    types = dict(zip(encoding.sequence_ids, encoding.type_ids, strict=True))
    return types[0], types[1]
