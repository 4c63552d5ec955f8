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
