"""What is known of a model from its headers alone, before any tensor is read."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any

from headrace.hub.gguf import GgufHeader


class WeightFormat(StrEnum):
    SAFETENSORS = "safetensors"
    GGUF = "gguf"


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """A model on this machine.

    `path` is the folder (safetensors) or the file (GGUF). `config` has the keys of a Hugging Face `config.json`;
    for GGUF they are translated from the metadata, so nobody above this folder needs to know which it was.
    `chat_template` is one template, several by name, or None if the model brings none.
    """

    name: str
    path: Path
    format: WeightFormat
    config: dict[str, Any]
    generation_config: dict[str, Any] = field(default_factory=dict)
    chat_template: str | dict[str, str] | None = None
    gguf: GgufHeader | None = None
