"""From texts, ids and pairs to what the engine gets: ids of the vocabulary, no more than the model reads."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.core.errors import BadRequest, ContextOverflow
from headrace.core.pooling import PoolingInfo
from headrace.service.pooling_types import Encoding, PreparedInput, Scoring, Side
from headrace.service.tokenization import required_tokenizer
from headrace.text import Tokenizer
from headrace.text.special_frame import SpecialFrame

_BORDER_PIECES = 128
"""Cutting a text may change how the words at the cut are tokenized; so many more pieces are kept to lie behind them."""


class InputPreparer:
    """Every check and cut that needs no engine. Any thread may call it.

    `tokenizer` None: inputs must be ids. `info` says what the model reads, `max_model_len` the most it can read.
    Raises `BadCheckpoint` for a tokenizer that does unusual things with special tokens.
    """

    def __init__(self, tokenizer: Tokenizer | None, info: PoolingInfo, *, vocab_size: int, max_model_len: int) -> None:
        self._tokenizer = tokenizer
        self._frames: dict[bool, SpecialFrame] = {}
        if tokenizer is not None:
            self._frames = {flag: tokenizer.special_frame(add_special_tokens=flag) for flag in (True, False)}
        self._vocab_size = vocab_size
        self._cut_to = info.max_seq_length
        self._longest = max_model_len if info.max_seq_length is None else info.max_seq_length
        self._knows_parts = info.type_vocab_size > 1

    def prepare(
        self, inputs: Sequence[str | Sequence[int]], encoding: Encoding, *, most: int = 0
    ) -> list[PreparedInput]:
        """Each of the inputs; of a text no more than `most` tokens beside the special ones (0: all that can be read).

        Raises `BadRequest` or `ContextOverflow`, naming the parameter.
        """
        limit = self._limit(encoding.truncate_prompt_tokens)
        texts = [given for given in inputs if isinstance(given, str)]
        encoded = iter(self._encoded(texts, encoding, limit, most) if texts else ())
        prepared = [
            next(encoded) if isinstance(given, str) else _cut(self._checked(given), limit, encoding.truncation_side)
            for given in inputs
        ]
        return [PreparedInput(self._fitting(ids)) for ids in prepared]

    def prepare_pairs(self, call: Scoring) -> list[PreparedInput]:
        """Each query with its document; the longer text of a pair that is too long is cut. Raises as `prepare`."""
        required_tokenizer(self._tokenizer, parameter="documents")
        encoding, side = call.encoding, call.encoding.truncation_side
        frame = self._frames[encoding.add_special_tokens]
        room = _room(self._limit(encoding.truncate_prompt_tokens), frame.pair)
        queries = self._contents(call.queries, call.max_tokens_per_query or None, side)
        # Which text of a pair is the longer must be seen.
        seen = None if room is None else max(room, *map(len, queries))
        documents = self._contents(call.documents, _tighter(seen, call.max_tokens_per_doc), side)
        if len(queries) == 1:
            queries *= len(documents)
        prepared = []
        for query, document in zip(queries, documents, strict=True):
            pair = frame.around_pair(*_longest_first(query, document, room, side))
            type_ids = pair.type_ids if self._knows_parts and any(pair.type_ids) else None
            prepared.append(PreparedInput(self._fitting(pair.ids), type_ids))
        return prepared

    def cut_text(self, text: str, most: int) -> str:
        """The beginning of `text` that has `most` tokens; 0: all of it."""
        if not most:
            return text
        tokenizer = required_tokenizer(self._tokenizer, parameter="documents")
        ids = tokenizer.encode(text, add_special_tokens=False)
        return text if len(ids) <= most else tokenizer.decode(ids[:most])

    def _encoded(self, texts: Sequence[str], encoding: Encoding, limit: int | None, most: int) -> list[list[int]]:
        required_tokenizer(self._tokenizer, parameter="input")
        frame = self._frames[encoding.add_special_tokens]
        room = _tighter(_room(limit, frame.single), most)
        return [frame.around(content) for content in self._contents(texts, room, encoding.truncation_side)]

    def _contents(self, texts: Sequence[str], room: int | None, side: Side) -> list[list[int]]:
        """The ids of the texts without special tokens, no more than `room` of each.

        Of a text that is far too long, no more is tokenized than can matter.
        """
        tokenizer = required_tokenizer(self._tokenizer, parameter="input")
        if room is None:
            return tokenizer.encode_batch(texts, add_special_tokens=False)
        enough = room + _BORDER_PIECES
        longest = enough * tokenizer.max_piece_chars
        heads = [text[:longest] for text in texts] if side == "right" else texts
        contents = tokenizer.encode_batch(heads, add_special_tokens=False)
        for index, (text, head) in enumerate(zip(texts, heads, strict=True)):
            # Spaces, and words that nobody knows, can take any number of characters for one token or none.
            if len(head) < len(text) and len(contents[index]) < enough:
                contents[index] = tokenizer.encode(text, add_special_tokens=False)
        return [_cut(content, room, side) for content in contents]

    def _checked(self, given: Sequence[int]) -> list[int]:
        low, high = min(given, default=0), max(given, default=0)
        if low < 0 or high >= self._vocab_size:
            wrong = low if low < 0 else high
            raise BadRequest(f"Token id {wrong} is out of vocabulary", parameter="input", value=wrong)
        return list(given)

    def _limit(self, asked: int | None) -> int | None:
        """Most tokens of an input; None: it is not cut."""
        if asked is None:
            return self._cut_to
        if asked == -1:
            return self._longest
        if not 1 <= asked <= self._longest:
            raise BadRequest(
                f"truncate_prompt_tokens must be -1 or in [1, {self._longest}], got {asked}.",
                parameter="truncate_prompt_tokens",
                value=asked,
            )
        return asked

    def _fitting(self, ids: list[int]) -> list[int]:
        """`ids` themselves. Raises if there are none, or more than the model can read."""
        if not ids:
            raise BadRequest("The input must not be empty: it has no tokens.", parameter="input")
        if len(ids) > self._longest:
            raise ContextOverflow(
                f"This model's maximum context length is {self._longest} tokens. However, your input contains "
                f"{len(ids)} tokens. Please reduce its length, or set truncate_prompt_tokens.",
                parameter="input_tokens",
                value=len(ids),
            )
        return ids


def _room(limit: int | None, specials: int) -> int | None:
    """What `limit` leaves for the texts themselves."""
    if limit is None:
        return None
    if limit <= specials:
        raise BadRequest(
            f"truncate_prompt_tokens must be at least {specials + 1}: {specials} tokens are special ones.",
            parameter="truncate_prompt_tokens",
            value=limit,
        )
    return limit - specials


def _tighter(room: int | None, most: int) -> int | None:
    """The smaller of two limits, of which None and 0 are none."""
    if not most:
        return room
    return most if room is None else min(room, most)


def _cut(ids: list[int], most: int | None, side: Side) -> list[int]:
    if most is None or len(ids) <= most:
        return ids
    return ids[:most] if side == "right" else ids[len(ids) - most :]


def _longest_first(first: list[int], second: list[int], room: int | None, side: Side) -> tuple[list[int], list[int]]:
    """Both; where they do not fit, the longer is cut, at most to the other's length, and from there on both alike."""
    if room is None or len(first) + len(second) <= room:
        return first, second
    shorter = min(len(first), len(second), room // 2)
    kept = (shorter, room - shorter) if len(first) <= len(second) else (room - shorter, shorter)
    return _cut(first, kept[0], side), _cut(second, kept[1], side)
