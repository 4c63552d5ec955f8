"""Chat templates as model files carry them: one, or several by name of which "default" is the usual one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headrace.core.errors import BadCheckpoint
from headrace.hub.local import read_json

_GGUF_KEY = "tokenizer.chat_template"


def template_of_folder(folder: Path) -> str | dict[str, str] | None:
    """From chat_template.jinja and additional_chat_templates/, else tokenizer_config.json, else chat_template.json."""
    named = {file.stem: _read(file) for file in sorted((folder / "additional_chat_templates").glob("*.jinja"))}
    if (folder / "chat_template.jinja").is_file():
        named["default"] = _read(folder / "chat_template.jinja")
    if named:
        return _one_or_many(named)
    for file in (folder / "tokenizer_config.json", folder / "chat_template.json"):
        template = read_json(file).get("chat_template")
        if template is not None:
            return _from_json(file, template)
    return None


def template_of_gguf(metadata: dict[str, Any]) -> str | dict[str, str] | None:
    """From `tokenizer.chat_template` and `tokenizer.chat_template.NAME`."""
    named = {
        key.removeprefix(f"{_GGUF_KEY}."): value for key, value in metadata.items() if key.startswith(f"{_GGUF_KEY}.")
    }
    if _GGUF_KEY in metadata:
        named["default"] = metadata[_GGUF_KEY]
    return _one_or_many(named)


def _from_json(file: Path, template: Any) -> str | dict[str, str] | None:
    if isinstance(template, str):
        return template
    try:
        return _one_or_many({entry["name"]: entry["template"] for entry in template})
    except (TypeError, KeyError) as error:
        raise BadCheckpoint(
            f"{file}: chat_template must be a text or a list of objects with name and template"
        ) from error


def _one_or_many(named: dict[str, str]) -> str | dict[str, str] | None:
    if not named:
        return None
    return named["default"] if named.keys() == {"default"} else named


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise BadCheckpoint(f"{file}: cannot be read as text: {error}") from error
