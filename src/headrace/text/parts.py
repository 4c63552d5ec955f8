"""What every kind of model file yields once its tokenizer has been read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tokenizers

SPECIAL_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
"""The names under which configurations and chat templates speak of special tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenizerParts:
    """`special_tokens` holds the text of a special token by its role; `config` what `/tokenizer_info` tells.

    `max_piece_chars` is the length of the longest vocabulary entry in characters.
    """

    backend: tokenizers.Tokenizer
    max_piece_chars: int
    special_tokens: dict[str, str]
    config: dict[str, Any]


def begin_and_end(
    backend: tokenizers.Tokenizer, special_tokens: dict[str, str], *, add_bos: bool, add_eos: bool
) -> tokenizers.processors.PostProcessor:
    """The post-processor that puts the beginning and end tokens around a prompt, where the model has them."""
    around = []
    for wanted, role in ((add_bos, "bos_token"), (add_eos, "eos_token")):
        token = special_tokens.get(role)
        token_id = backend.token_to_id(token) if wanted and token is not None else None
        around.append(None if token_id is None else (token, token_id))
    bos, eos = around
    single = [f"{bos[0]}:0"] if bos else []
    single.append("$A:0")
    single += [f"{eos[0]}:0"] if eos else []
    return tokenizers.processors.TemplateProcessing(
        single=single, special_tokens=[token for token in dict.fromkeys(around) if token]
    )
