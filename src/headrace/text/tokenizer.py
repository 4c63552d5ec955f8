"""From text to token ids and back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headrace.core.errors import BadCheckpoint, BadRequest
from headrace.core.vocabulary import Vocabulary
from headrace.hub.checkpoint import Checkpoint
from headrace.hub.gguf import read_gguf_header
from headrace.text.folder_tokenizer import tokenizer_from_folder
from headrace.text.gguf_tokenizer import tokenizer_from_gguf
from headrace.text.incremental import REPLACEMENT, ByteDecoder, IncrementalDecoder, WindowDecoder
from headrace.text.parts import TokenizerParts
from headrace.text.special_frame import SpecialFrame
from headrace.text.token_bytes import TokenBytes, is_utf8, piece_of, piece_spelling

_LOOK_BACK = 4
"""Tokens before one that may hold the beginning of its first character."""


class Tokenizer:
    """A model's tokenizer. Immutable, and may be used by several threads at once.

    `max_piece_chars` is the length of the longest vocabulary entry: a text of c characters has at least
    c / max_piece_chars tokens (short of special tokens that swallow the spaces around them).
    `special_tokens` has the text of the special tokens by role (`bos_token`, `eos_token`, ...), for chat templates.
    """

    def __init__(self, parts: TokenizerParts) -> None:
        backend = parts.backend
        self._backend = backend
        self._config = parts.config
        self.special_tokens = parts.special_tokens
        self.bos_token = parts.special_tokens.get("bos_token")
        self.eos_token = parts.special_tokens.get("eos_token")
        self.pad_token = parts.special_tokens.get("pad_token")
        self.eos_token_id: int | None = None if self.eos_token is None else backend.token_to_id(self.eos_token)
        self.vocab_size: int = backend.get_vocab_size()
        self.max_piece_chars = parts.max_piece_chars
        added = backend.get_added_tokens_decoder()
        self.special_ids = frozenset(token_id for token_id, token in added.items() if token.special)
        self._added_ids = frozenset(added)
        self._spelling = piece_spelling(backend.decoder)
        if self._spelling is not None:
            nothing: frozenset[int] = frozenset()
            self._bytes = TokenBytes(backend, self._spelling, added=self._added_ids, hidden=nothing)
            self._shown_bytes = TokenBytes(backend, self._spelling, added=self._added_ids, hidden=self.special_ids)

    @classmethod
    def load(cls, checkpoint: Checkpoint, source: Path | None = None) -> Tokenizer:
        """The tokenizer of `checkpoint`, or the one at `source`: a folder, a `tokenizer.json` or a GGUF file.

        Raises `BadCheckpoint`, naming the file, if there is none or it cannot be understood.
        """
        parts = _read(checkpoint, source)
        if checkpoint.chat_template is not None:
            parts = replace(parts, config={**parts.config, "chat_template": checkpoint.chat_template})
        return cls(parts)

    def encode(self, text: str, *, add_special_tokens: bool = True) -> list[int]:
        """The ids of `text`; `add_special_tokens` puts those around it that the model begins and ends a text with.

        Other threads run meanwhile. Raises `BadRequest` if `text` holds half of a surrogate pair.
        """
        [ids] = self.encode_batch([text], add_special_tokens=add_special_tokens)
        return ids

    def encode_batch(self, texts: Sequence[str], *, add_special_tokens: bool = True) -> list[list[int]]:
        """As `encode`, for each of `texts`; several processors share the work."""
        try:
            # Of tokenizers' entries this is the one that releases the interpreter lock; it is also faster.
            encodings = self._backend.encode_batch_fast(texts, add_special_tokens=add_special_tokens)
        except TypeError:  # what tokenizers makes of text that has no UTF-8 form
            for text in texts:
                _refuse_surrogates(text)
            raise
        return [encoding.ids for encoding in encodings]

    def special_frame(self, *, add_special_tokens: bool = True) -> SpecialFrame:
        """What `add_special_tokens` puts around a text or a pair. Raises `BadCheckpoint` if that is no frame."""
        return SpecialFrame(self._backend, add_special_tokens=add_special_tokens)

    def decode(
        self, ids: Sequence[int], *, skip_special_tokens: bool = True, spaces_between_special_tokens: bool = True
    ) -> str:
        """The text of `ids`. Ids beyond the vocabulary give none; bytes that are no UTF-8 show as U+FFFD.

        `spaces_between_special_tokens` False leaves out the spaces that some decoders put around added tokens;
        byte-level and SentencePiece tokenizers put none.
        """
        if self._spelling is None:
            return self._decode_window(ids, skip_special_tokens, spaces_between_special_tokens)
        token_bytes = self._shown_bytes if skip_special_tokens else self._bytes
        text = b"".join([token_bytes[token_id] for token_id in ids]).decode(errors="replace")
        for _ in range(self._spelling.dropped_spaces):
            text = text.removeprefix(" ")
        return text

    def decoder(
        self,
        prompt_ids: Sequence[int],
        *,
        skip_special_tokens: bool = True,
        spaces_between_special_tokens: bool = True,
    ) -> IncrementalDecoder:
        """A decoder of what follows `prompt_ids`; the options are those of `decode`."""
        if self._spelling is None:
            return WindowDecoder(
                lambda ids: self._decode_window(ids, skip_special_tokens, spaces_between_special_tokens), prompt_ids
            )
        token_bytes = self._shown_bytes if skip_special_tokens else self._bytes
        return ByteDecoder(token_bytes, prompt_ids, dropped_spaces=self._spelling.dropped_spaces)

    def piece(self, token_id: int) -> str | None:
        """The raw vocabulary entry (`"Ġworld"`); None beyond the vocabulary."""
        return piece_of(self._backend, token_id)

    def token_text(self, token_id: int, before: Sequence[int]) -> str:
        """The text of one token among log-probabilities; `before` are the ids in front of it.

        A token that ends inside a character gives the empty string; the one that completes it gives the text of
        both. Special tokens show as they are written.
        """
        if self._spelling is None:
            return self._decode_window([token_id], False, True)
        own = data = self._bytes[token_id]
        earlier = iter(before[: -_LOOK_BACK - 1 : -1])
        while not is_utf8(data):
            head = self._bytes[previous] if (previous := next(earlier, None)) is not None else b""
            if is_utf8(head):  # nor empty: nothing further back can belong to this token's character
                text = own.decode(errors="replace")
                return "" if text.endswith(REPLACEMENT) else text
            data = head + data
        return data.decode()

    def vocabulary(self, eos_ids: Sequence[int]) -> Vocabulary | None:
        """The bytes of all tokens; None if the text of a token depends on those around it. `eos_ids` end an answer.

        Takes 0.1 s for 50 000 tokens.
        """
        if self._spelling is None:
            return None
        ids = range(max(self._backend.get_vocab().values()) + 1)
        special = self.special_ids.union(eos_ids)
        return Vocabulary(
            tokens=[self._bytes[token_id] for token_id in ids],
            special_ids=tuple(sorted(token_id for token_id in special if token_id in ids)),
            eos_ids=tuple(eos_ids),
        )

    def info(self) -> dict[str, Any]:
        """The tokenizer's configuration, with `tokenizer_class` and the model's own `chat_template`, if it has one.

        The body of `/tokenizer_info`.
        """
        return dict(self._config)

    def _decode_window(self, ids: Sequence[int], skip_special: bool, spaces: bool) -> str:
        """`decode` by the backend, for decoders that do more than join bytes."""
        known = [token_id for token_id in ids if self.piece(token_id) is not None]
        if spaces:
            return self._backend.decode(known, skip_special_tokens=skip_special)
        return "".join(
            self._backend.decode(run, skip_special_tokens=skip_special) for run in _runs(known, self._added_ids)
        )


def _read(checkpoint: Checkpoint, source: Path | None) -> TokenizerParts:
    if source is None and checkpoint.gguf is not None:
        return tokenizer_from_gguf(checkpoint.path, checkpoint.gguf.metadata)
    path = checkpoint.path if source is None else source
    if not path.exists():
        raise BadCheckpoint(f"{path}: no such tokenizer file or folder.")
    if path.suffix == ".gguf":
        return tokenizer_from_gguf(path, read_gguf_header(path).metadata)
    return tokenizer_from_folder(path)


def _runs(ids: Iterable[int], alone: frozenset[int]) -> list[list[int]]:
    """`ids` cut before and after each of those that stand alone."""
    runs: list[list[int]] = []
    for token_id in ids:
        if runs and token_id not in alone and runs[-1][-1] not in alone:
            runs[-1].append(token_id)
        else:
            runs.append([token_id])
    return runs


def _refuse_surrogates(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"The text holds half of a surrogate pair at character {error.start}; it is not valid Unicode.",
            parameter="prompt",
        ) from None
