"""Reads the tokenizer of a Hugging Face folder: `tokenizer.json` and the configuration files beside it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer
from tokenizers.normalizers import Lowercase
from tokenizers.normalizers import Sequence as Normalizers

from headrace.core.errors import BadCheckpoint
from headrace.hub.sentence_files import read_sentence_files
from headrace.text.parts import SPECIAL_ROLES, TokenizerParts

_TOKENIZER = "tokenizer.json"


def tokenizer_from_folder(path: Path) -> TokenizerParts:
    """The tokenizer in the folder `path`, or in the `tokenizer.json` of any name at `path`.

    Special tokens come from `tokenizer_config.json`, those it does not name from `special_tokens_map.json`; either
    has them as text or as an object. What is put around a prompt is up to `tokenizer.json` alone: like transformers,
    we go by its post-processor and not by `add_bos_token` and `add_eos_token`. A model of sentence-transformers may ask
    for lower case in a file of its own.
    Raises `BadCheckpoint`, naming the file, if one is missing or damaged.
    """
    file = path if path.is_file() else path / _TOKENIZER
    config = _read_object(file.parent / "tokenizer_config.json")
    special_map = _read_object(file.parent / "special_tokens_map.json")
    backend = _read_backend(file)
    backend.no_truncation()  # limits are checked, and cut text is never silently taken for the whole
    backend.no_padding()
    _add_missing(backend, config, special_map)
    if read_sentence_files(file.parent).do_lower_case:
        _lower_case(backend)
    special_tokens = {
        role: _text(value) for role in SPECIAL_ROLES if (value := config.get(role) or special_map.get(role)) is not None
    }
    shown = {"tokenizer_class": "PreTrainedTokenizerFast", **config, **special_tokens}
    return TokenizerParts(
        backend=backend,
        max_piece_chars=max(map(len, backend.get_vocab()), default=1),
        special_tokens=special_tokens,
        config=shown,
    )


def _read_backend(file: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(file))
    except Exception as error:  # tokenizers raises nothing more precise
        if file.is_file():
            raise BadCheckpoint(f"{file}: cannot be read as a tokenizer: {error}") from None
        raise BadCheckpoint(f"{file.parent}: has no {_TOKENIZER}; give a folder that has one by --tokenizer.") from None


def _lower_case(backend: Tokenizer) -> None:
    before = [] if backend.normalizer is None else [backend.normalizer]
    backend.normalizer = Normalizers([Lowercase(), *before])


def _read_object(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{file}: cannot be read as JSON: {error}") from None
    if not isinstance(content, dict):
        raise BadCheckpoint(f"{file}: must hold a JSON object, not {type(content).__name__}.")
    return content


def _add_missing(backend: Tokenizer, config: Mapping[str, Any], special_map: Mapping[str, Any]) -> None:
    """Add the tokens that only the configuration knows as such, so that they too are found in text as a whole."""
    present = {token.content for token in backend.get_added_tokens_decoder().values()}
    by_id = config.get("added_tokens_decoder", {})
    wanted = [_added_token(by_id[token_id], special=False) for token_id in sorted(by_id, key=int)]
    for source in (config, special_map):
        named = [source[role] for role in SPECIAL_ROLES if source.get(role) is not None]
        more = source.get("additional_special_tokens") or []
        wanted += [_added_token(value, special=True) for value in [*named, *more]]
    backend.add_tokens([token for token in wanted if token.content not in present])


def _added_token(value: str | Mapping[str, Any], *, special: bool) -> AddedToken:
    if isinstance(value, str):
        return AddedToken(value, special=special, normalized=False)
    flags = {name: bool(value.get(name, False)) for name in ("single_word", "lstrip", "rstrip", "normalized")}
    return AddedToken(_text(value), special=special or bool(value.get("special", False)), **flags)


def _text(value: str | Mapping[str, Any]) -> str:
    return value if isinstance(value, str) else value["content"]
