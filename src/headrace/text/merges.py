"""Merges of a score-ranked vocabulary: rebuilt from its scores, and kept so that this is done once per model.

SentencePiece joins the two neighbours whose union has the best score, again and again. `tokenizers` wants that as a
ranked list of pairs: every way to cut every piece into two pieces, best union first. For Gemma's 262,144 pieces
these are 514,906 pairs, which take 1.0 s to find and 0.2 s to read back as pairs of ids; building the model from them
takes another 0.5 s. (Reading the whole tokenizer as JSON would take 1.1 s instead of those 0.7.)
"""

from __future__ import annotations

import hashlib
import os
import secrets
import sys
from array import array
from collections.abc import Sequence
from pathlib import Path

_FORMAT = b"headrace merges 1\n"
_DIGEST_BYTES = 16


def rebuild_merges(pieces: Sequence[str], ranking: Sequence[int]) -> list[tuple[str, str]]:
    """Every cut of a piece into two others, in the order of `ranking` (the mergeable ids, best first).

    Cuts of one piece come with the longest left half first, as `transformers` has them.
    """
    mergeable = {pieces[token_id] for token_id in ranking}
    merges: list[tuple[str, str]] = []
    for token_id in ranking:
        piece = pieces[token_id]
        for cut in range(len(piece) - 1, 0, -1):
            left = piece[:cut]
            if left in mergeable and (right := piece[cut:]) in mergeable:
                merges.append((left, right))
    return merges


class MergeCache:
    """Files of merges beside the model, or in the user's cache folder where that place cannot be written.

    A file is named by a hash of everything the merges follow from, so it never goes stale. A damaged file is as
    good as none; that nothing can be written is no error.
    """

    def __init__(self, model: Path) -> None:
        self._model = model
        self._folders = (model.parent, Path(os.path.expanduser("~/.cache/headrace/tokenizers")))

    def load(self, key: bytes, pieces: Sequence[str]) -> list[tuple[str, str]] | None:
        """The merges kept under `key`, or None."""
        for folder in self._folders:
            try:
                content = (folder / self._name(key)).read_bytes()
                return _unpack(content, pieces)
            except (OSError, _Damaged):
                continue
        return None

    def save(self, key: bytes, pieces: Sequence[str], merges: list[tuple[str, str]]) -> None:
        """Keep `merges` under `key`, in the first folder that takes them."""
        content = _pack(merges, pieces)
        for folder in self._folders:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                _write_atomically(folder / self._name(key), content)
            except OSError:
                continue
            return

    def _name(self, key: bytes) -> str:
        return f"{self._model.name}.{hashlib.blake2b(_FORMAT + key, digest_size=8).hexdigest()}.merges"


class _Damaged(Exception):
    """The file is cut short, of another format or not about this vocabulary."""


def _pack(merges: list[tuple[str, str]], pieces: Sequence[str]) -> bytes:
    ids = {piece: token_id for token_id, piece in enumerate(pieces)}
    body = _little_endian(array("I", [ids[half] for merge in merges for half in merge])).tobytes()
    return _FORMAT + hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest() + body


def _unpack(content: bytes, pieces: Sequence[str]) -> list[tuple[str, str]]:
    head = len(_FORMAT) + _DIGEST_BYTES
    body = content[head:]
    digest = hashlib.blake2b(body, digest_size=_DIGEST_BYTES).digest()
    ids = array("I")
    if content[:head] != _FORMAT + digest or len(body) % (2 * ids.itemsize):
        raise _Damaged
    ids.frombytes(body)
    halves = map(pieces.__getitem__, _little_endian(ids))
    try:
        return list(zip(halves, halves, strict=True))
    except IndexError:
        raise _Damaged from None


def _little_endian(ids: array[int]) -> array[int]:
    if sys.byteorder == "big":
        ids.byteswap()
    return ids


def _write_atomically(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with temporary.open("xb") as file:
            file.write(content)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
