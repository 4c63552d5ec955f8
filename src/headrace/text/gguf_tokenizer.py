"""Builds a tokenizer from the metadata of a GGUF file, which has the vocabulary but no `tokenizer.json`.

Metadata keys: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#tokenizer. Two kinds of vocabulary are read:
`gpt2`, byte-level BPE with the merges in the file, and `llama`, SentencePiece BPE, which has scores in their place.
"""

from __future__ import annotations

import hashlib
from array import array
from collections.abc import Mapping
from enum import IntEnum
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, normalizers, pre_tokenizers, processors
from tokenizers.models import BPE

from headrace.core.errors import BadCheckpoint
from headrace.text.gguf_pretokenizers import splitting
from headrace.text.merges import MergeCache, rebuild_merges
from headrace.text.parts import TokenizerParts

_SPACE = "▁"

_ROLE_KEYS = {
    "bos_token": "bos_token_id",
    "eos_token": "eos_token_id",
    "unk_token": "unknown_token_id",
    "sep_token": "seperator_token_id",  # spelled so in the format
    "pad_token": "padding_token_id",
    "mask_token": "mask_token_id",
}


class TokenType(IntEnum):
    """What `tokenizer.ggml.token_type` says of a piece."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


def tokenizer_from_gguf(path: Path, metadata: Mapping[str, Any]) -> TokenizerParts:
    """The tokenizer that the metadata of the GGUF file at `path` describes.

    Its ids equal those of transformers' `AutoTokenizer` for the same file, except where a comment here or in
    `gguf_pretokenizers` says that the published tokenizer of the model differs from both. Raises `BadCheckpoint`,
    naming the key, if the metadata is incomplete, contradicts itself or is of a kind that is not supported.
    """
    vocabulary = _Vocabulary(path, metadata)
    match vocabulary.setting("model", None):
        case "gpt2":
            backend, add_bos = _byte_level(vocabulary)
        case "llama":
            backend, add_bos = _sentencepiece(vocabulary), True
        case None:
            raise BadCheckpoint(f"{path}: has no tokenizer.ggml.model; give a tokenizer by --tokenizer.")
        case kind:
            raise BadCheckpoint(
                f"{path}: tokenizer.ggml.model is {kind!r}; 'gpt2' and 'llama' are supported. "
                "Give a folder with the model's tokenizer.json by --tokenizer."
            )
    special_tokens = vocabulary.special_tokens()
    backend.add_tokens(vocabulary.added_tokens(special_tokens))
    bos = special_tokens.get("bos_token") if vocabulary.setting("add_bos_token", add_bos) else None
    eos = special_tokens.get("eos_token") if vocabulary.setting("add_eos_token", False) else None
    backend.post_processor = _around(backend, bos, eos)
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": bos is not None,
        "add_eos_token": eos is not None,
        **special_tokens,
    }
    return TokenizerParts(
        backend=backend,
        max_piece_chars=max(map(len, vocabulary.pieces), default=1),
        special_tokens=special_tokens,
        config=config,
    )


def _around(backend: Tokenizer, bos: str | None, eos: str | None) -> processors.TemplateProcessing:
    """Puts `bos` in front of a prompt and `eos` behind it, where they are given."""
    template = [token for token in (bos, "$A", eos) if token is not None]
    special_tokens = [(token, backend.token_to_id(token)) for token in {bos, eos} if token is not None]
    return processors.TemplateProcessing(single=template, special_tokens=special_tokens)


class _Vocabulary:
    """The metadata under `tokenizer.ggml`, checked as it is read."""

    def __init__(self, path: Path, metadata: Mapping[str, Any]) -> None:
        self.path = path
        self.architecture: str = metadata.get("general.architecture", "")
        self._metadata = metadata
        self.pieces = self._strings("tokens")
        self.types: list[int] = self._numbers("token_type", TokenType.NORMAL)
        if self.setting("model", None) == "llama":
            # Runs of spaces are written as such in the file; the text will have them as U+2581 when they are sought.
            self.pieces = [
                _SPACE * len(piece) if " " in piece and not piece.strip(" ") else piece for piece in self.pieces
            ]

    def setting(self, key: str, default: Any) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{key}", default)

    def merges(self) -> list[tuple[str, str]]:
        """The merges the file lists. A piece of the byte alphabet holds no space, so the first one parts a pair."""
        merges = []
        for line in self._strings("merges"):
            left, space, right = line.partition(" ")
            if not space:
                raise BadCheckpoint(f"{self.path}: tokenizer.ggml.merges holds {line!r}, which is not a pair.")
            merges.append((left, right))
        return merges

    def scores(self) -> list[float]:
        if self.setting("scores", None) is None:
            raise BadCheckpoint(f"{self.path}: has neither tokenizer.ggml.scores nor tokenizer.ggml.merges.")
        return self._numbers("scores", 0.0)

    def special_tokens(self) -> dict[str, str]:
        """The text of the special tokens that the file names, by role."""
        named = {}
        for role, key in _ROLE_KEYS.items():
            token_id = self.setting(key, None)
            if token_id is not None and 0 <= token_id < len(self.pieces):  # files without one may say 0xFFFFFFFF
                named[role] = self.pieces[token_id]
        return named

    def added_tokens(self, special_tokens: Mapping[str, str]) -> list[AddedToken]:
        """The pieces that are found in text as a whole, before anything else looks at it.

        A control token in the text of a prompt becomes its id, as chat templates need it. Runs of spaces are left to
        the merges, as they never stand in the text in the form that the vocabulary has them in.
        """
        special = {piece for piece, kind in zip(self.pieces, self.types, strict=True) if kind == TokenType.CONTROL}
        special.update(special_tokens.values())
        return [
            AddedToken(piece, special=piece in special, normalized=False)
            for piece, kind in zip(self.pieces, self.types, strict=True)
            if piece in special or (kind == TokenType.USER_DEFINED and piece.strip(_SPACE))
        ]

    def bpe(self, merges: list[tuple[str, str]], **options: Any) -> BPE:
        ids = {piece: token_id for token_id, piece in enumerate(self.pieces)}
        try:
            return BPE(ids, merges, **options)
        except Exception as error:  # tokenizers raises nothing more precise
            raise BadCheckpoint(f"{self.path}: the merges do not fit the vocabulary: {error}") from None

    def _strings(self, key: str) -> list[str]:
        values = self.setting(key, None)
        if not isinstance(values, list):
            raise BadCheckpoint(f"{self.path}: tokenizer.ggml.{key} is missing; give a tokenizer by --tokenizer.")
        return values

    def _numbers(self, key: str, default: float) -> list[Any]:
        values = self.setting(key, None)
        if values is None:
            return [default] * len(self.pieces)
        if len(values) != len(self.pieces):
            raise BadCheckpoint(
                f"{self.path}: tokenizer.ggml.{key} has {len(values)} entries for {len(self.pieces)} tokens."
            )
        return values.tolist()


def _byte_level(vocabulary: _Vocabulary) -> tuple[Tokenizer, bool]:
    """Byte-level BPE, and whether it begins a prompt with BOS unless the file says otherwise."""
    split = splitting(vocabulary.setting("pre", None))
    backend = Tokenizer(vocabulary.bpe(vocabulary.merges(), ignore_merges=split.ignore_merges))
    backend.pre_tokenizer = split.pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    return backend, split.add_bos


def _sentencepiece(vocabulary: _Vocabulary) -> Tokenizer:
    """Score-ranked BPE that falls back to bytes for characters without a piece."""
    unknown = vocabulary.special_tokens().get("unk_token")
    merges = _score_ranked_merges(vocabulary)
    backend = Tokenizer(vocabulary.bpe(merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    if vocabulary.setting("add_space_prefix", not vocabulary.architecture.startswith("gemma")):
        steps.append(decoders.Strip(content=" ", left=1))
        if vocabulary.architecture == "phi3":  # published with the older form: a space before what begins with one
            backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), normalizers.Replace(" ", _SPACE)])
        else:
            backend.pre_tokenizer = pre_tokenizers.Metaspace(_SPACE, prepend_scheme="first", split=False)
    else:
        backend.normalizer = normalizers.Replace(" ", _SPACE)
    backend.decoder = decoders.Sequence(steps)
    return backend


def _score_ranked_merges(vocabulary: _Vocabulary) -> list[tuple[str, str]]:
    if vocabulary.setting("merges", None) is not None:
        return vocabulary.merges()
    pieces, types, scores = vocabulary.pieces, vocabulary.types, vocabulary.scores()
    key = hashlib.blake2b("\0".join(pieces).encode())
    key.update(array("q", types).tobytes())
    key.update(array("d", scores).tobytes())
    cache = MergeCache(vocabulary.path)
    if (kept := cache.load(key.digest(), pieces)) is not None:
        return kept
    merges = rebuild_merges(pieces, _ranking(types, scores))
    cache.save(key.digest(), pieces, merges)
    return merges


def _ranking(types: list[int], scores: list[float]) -> list[int]:
    """The ids that can come of merging, best first.

    User-defined pieces come before all others, as SentencePiece takes them whole whatever their score. For Gemma
    this is the order of its vocabulary, which transformers goes by. Control, unknown and byte pieces never come of
    merging.
    """
    mergeable = {TokenType.NORMAL, TokenType.USER_DEFINED, TokenType.UNUSED}
    return sorted(
        (token_id for token_id, kind in enumerate(types) if kind in mergeable),
        key=lambda token_id: (
            (0, 0.0, token_id) if types[token_id] == TokenType.USER_DEFINED else (1, -scores[token_id], token_id)
        ),
    )
