"""What the flags make of a model's own files: its tokenizer, chat template, sampling defaults and end tokens."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config.sections import ModelConfig
from headrace.core.errors import ConfigError
from headrace.hub import Checkpoint, pull
from headrace.service.defaults import eos_token_ids, sampling_defaults
from headrace.text import ChatTemplate, Tokenizer


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelText:
    """The model's side of text: everything about it that is not a tensor. `tokenizer` None: it is not wanted."""

    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    sampling_defaults: dict[str, Any]
    eos_token_ids: tuple[int, ...]


def load_model_text(config: ModelConfig, checkpoint: Checkpoint) -> ModelText:
    """Read it all; half a second for a large vocabulary. Raises `StartupError`."""
    tokenizer = None if config.tokens_only else Tokenizer.load(checkpoint, _tokenizer_source(config.tokenizer))
    return ModelText(
        tokenizer=tokenizer,
        template=None if tokenizer is None else _template(config.chat_template, checkpoint, tokenizer),
        sampling_defaults=sampling_defaults(
            checkpoint, source=config.generation_config, override=config.override_generation_config
        ),
        eos_token_ids=eos_token_ids(checkpoint),
    )


def _tokenizer_source(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name).expanduser()
    return path if path.exists() else pull(name, progress=True)


def _template(chosen: str | None, checkpoint: Checkpoint, tokenizer: Tokenizer) -> ChatTemplate | None:
    template = checkpoint.chat_template if chosen is None else _chosen_template(chosen)
    return None if template is None else ChatTemplate(template, tokenizer.special_tokens)


def _chosen_template(chosen: str) -> str:
    """The file's text, or `chosen` itself if it is a template: something with a brace or a line break in it."""
    path = Path(chosen).expanduser()
    if any(sign in chosen for sign in "{}\n"):
        return chosen
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise ConfigError(f"--chat-template: cannot read {path}: {problem}.") from None
