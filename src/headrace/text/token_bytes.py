"""The bytes that a token id stands for.

In byte-level and in SentencePiece vocabularies a text is the UTF-8 decoding of the joined bytes of its tokens, and of
nothing else. Knowing the bytes of each token, text can be decoded from any place on, without its context.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import Decoder

_SPACE = "▁"
_BYTE_PIECE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte in a byte-level piece, to that byte.

    Printable bytes of Latin-1 stand for themselves, the others for U+0100 onwards in order (GPT-2's `encoder.py`).
    """
    printable = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + n): byte for n, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()


@dataclass(frozen=True, slots=True)
class PieceSpelling:
    """How pieces spell bytes. `dropped_spaces`: so many spaces at the very start of a text are not part of it."""

    spell: Callable[[str], bytes]
    spell_added: Callable[[str], bytes]
    dropped_spaces: int = 0


def piece_spelling(decoder: Decoder | None) -> PieceSpelling | None:
    """The spelling that `decoder` undoes, or None if its text is more than the joined bytes of its tokens."""
    if decoder is None:
        return None
    state: dict[str, Any] = json.loads(decoder.__getstate__())
    steps = state["decoders"] if state["type"] == "Sequence" else [state]
    steps = [step for step in steps if step["type"] != "Fuse"]
    if [step["type"] for step in steps] == ["ByteLevel"]:
        return PieceSpelling(_byte_level, str.encode)
    return _sentencepiece_spelling(steps)


def _sentencepiece_spelling(steps: list[dict[str, Any]]) -> PieceSpelling | None:
    spaces, dropped, byte_pieces = False, 0, False
    for step in steps:
        match step:
            case {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}:
                spaces = True
            case {"type": "ByteFallback"}:
                byte_pieces = True
            case {"type": "Strip", "content": " ", "start": start, "stop": 0}:
                dropped = start
            case {"type": "Metaspace", "replacement": "▁", "prepend_scheme": scheme}:
                spaces, dropped = True, int(scheme != "never")
            case _:
                return None
    if not spaces:
        return None
    return PieceSpelling(_sentencepiece_bytes if byte_pieces else _sentencepiece, _sentencepiece, dropped)


def _byte_level(piece: str) -> bytes:
    try:
        return bytes([_BYTE_OF[character] for character in piece])
    except KeyError:  # not in the byte alphabet: the piece is plain text
        return piece.encode()


def _sentencepiece(piece: str) -> bytes:
    return piece.replace(_SPACE, " ").encode()


def _sentencepiece_bytes(piece: str) -> bytes:
    if match := _BYTE_PIECE.fullmatch(piece):
        return bytes([int(match[1], 16)])
    return _sentencepiece(piece)


class TokenBytes(dict[int, bytes]):
    """Bytes by token id; none for `hidden` ids and for ids beyond the vocabulary. Filled as ids are met.

    Threads may share it: at worst two of them look up the same id.
    """

    def __init__(self, backend: Tokenizer, spelling: PieceSpelling, *, added: frozenset[int], hidden: frozenset[int]):
        super().__init__()
        self._backend = backend
        self._spelling = spelling
        self._added = added
        self._hidden = hidden

    def __missing__(self, token_id: int) -> bytes:
        if token_id in self._hidden or (piece := piece_of(self._backend, token_id)) is None:
            return b""
        spell = self._spelling.spell_added if token_id in self._added else self._spelling.spell
        spelled = self[token_id] = spell(piece)
        return spelled


def piece_of(backend: Tokenizer, token_id: int) -> str | None:
    """The vocabulary entry of `token_id`; None beyond the vocabulary, where tokenizers may raise."""
    return backend.id_to_token(token_id) if 0 <= token_id < 1 << 32 else None


def is_utf8(data: bytes) -> bool:
    """Whether `data` is UTF-8, from its first byte to its last."""
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
