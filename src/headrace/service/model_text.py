"""What the flags make of a model's own files: its tokenizer, chat template, sampling defaults and end tokens."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headrace.config.sections import ModelConfig
from headrace.core.errors import ConfigError
from headrace.hub import Checkpoint, pull
from headrace.service.answers import AnswerFormats
from headrace.service.defaults import eos_token_ids, sampling_defaults
from headrace.text import ChatTemplate, Tokenizer
from headrace.text.builtin_templates import BUILTIN_TEMPLATES
from headrace.text.reasoning import reasoning_format
from headrace.text.tools import tool_format

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelText:
    """The model's side of text: everything about it that is not a tensor. `tokenizer` None: it is not wanted.

    `score_template`: the chat template if it was chosen for this server, which may be one for pairs of texts.
    """

    tokenizer: Tokenizer | None
    template: ChatTemplate | None
    score_template: ChatTemplate | None
    sampling_defaults: dict[str, Any]
    eos_token_ids: tuple[int, ...]
    formats: AnswerFormats


def load_model_text(config: ModelConfig, checkpoint: Checkpoint) -> ModelText:
    """Read it all; half a second for a large vocabulary. Raises `StartupError`."""
    tokenizer = None if config.tokens_only else Tokenizer.load(checkpoint, _tokenizer_source(config.tokenizer))
    template = None if tokenizer is None else _template(config, checkpoint, tokenizer)
    return ModelText(
        tokenizer=tokenizer,
        template=template,
        score_template=None if config.chat_template is None else template,
        sampling_defaults=sampling_defaults(
            checkpoint, source=config.generation_config, override=config.override_generation_config
        ),
        eos_token_ids=eos_token_ids(checkpoint),
        formats=answer_formats(config),
    )


def _tokenizer_source(name: str | None) -> Path | None:
    if name is None:
        return None
    path = Path(name).expanduser()
    return path if path.exists() else pull(name, progress=True)


def _template(config: ModelConfig, checkpoint: Checkpoint, tokenizer: Tokenizer) -> ChatTemplate | None:
    source = checkpoint.chat_template if config.chat_template is None else _chosen_template(config.chat_template)
    if source is None:
        return None
    if config.chat_template_content_format != "auto":
        return ChatTemplate(source, tokenizer.special_tokens, content_format=config.chat_template_content_format)
    template = ChatTemplate(source, tokenizer.special_tokens)
    log.info(
        "Detected the chat template content format to be '%s'. --chat-template-content-format overrides it.",
        template.content_format(),
    )
    return template


def _chosen_template(chosen: str) -> str:
    """The text of a file; else `chosen` itself, if it is a template; else the built-in one of that name."""
    path = Path(chosen).expanduser()
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as problem:
        raise ConfigError(f"--chat-template: cannot read {path}: {problem}.") from None
    except (OSError, ValueError) as problem:
        reason = problem
    if any(sign in chosen for sign in "{}\n"):
        return chosen
    if (known := BUILTIN_TEMPLATES.get(chosen)) is not None:
        return known
    raise ConfigError(
        f"--chat-template: cannot read {path} ({reason}). It looks like a path; a template itself would have a brace, "
        f"and the built-in ones are: {', '.join(BUILTIN_TEMPLATES)}."
    )


def answer_formats(config: ModelConfig) -> AnswerFormats:
    """Raises `ConfigError` for a parser that nobody knows, and for one whose calls cannot be constrained as asked."""
    plugin = Path(config.tool_parser_plugin).expanduser() if config.tool_parser_plugin else None
    tools = None if config.tool_call_parser is None else tool_format(config.tool_call_parser, plugin)
    if config.tool_strict_level != "auto" and tools is not None and tools.tags is None:
        raise ConfigError(
            f"--tool-strict-level {config.tool_strict_level}: calls in the format {config.tool_call_parser} cannot be "
            "constrained when the model decides to make them."
        )
    return AnswerFormats(
        tools=tools,
        strict_level=config.tool_strict_level,
        reasoning=None if config.reasoning_parser is None else reasoning_format(config.reasoning_parser),
        constrained_reasoning=config.structured_outputs.enable_in_reasoning,
    )
