"""Sampling values and end-of-sequence ids that a model brings along."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headrace.core.errors import ConfigError
from headrace.hub.checkpoint import Checkpoint

SAMPLING_KEYS = (
    "temperature",
    "top_k",
    "top_p",
    "min_p",
    "repetition_penalty",
    "presence_penalty",
    "frequency_penalty",
    "max_new_tokens",
)
"""What is taken from a generation config."""


def sampling_defaults(
    checkpoint: Checkpoint, *, source: str = "auto", override: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Sampling values by the name `SamplingParams` gives them, and `max_new_tokens`; only those that are set.

    `source`: "auto" is the checkpoint's own generation config, "vllm" none, else a folder with a
    `generation_config.json`. `override` is laid over it. Raises `ConfigError` if the folder holds no such file.
    """
    if source == "auto":
        values = checkpoint.generation_config
    elif source == "vllm":
        values = {}
    else:
        values = _read(Path(source).expanduser() / "generation_config.json")
    merged = {**values, **(override or {})}
    return {key: merged[key] for key in SAMPLING_KEYS if merged.get(key) is not None}


def eos_token_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Every id that ends an answer of this model, without repeats: its generation config's, else its config's."""
    found = checkpoint.generation_config.get("eos_token_id")
    if found is None:
        found = checkpoint.config.get("eos_token_id")
    if found is None:
        return ()
    return (found,) if isinstance(found, int) else tuple(dict.fromkeys(found))


def _read(path: Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as problem:
        raise ConfigError(f"generation_config: {path} cannot be read ({problem}).") from None
    if not isinstance(values, dict):
        raise ConfigError(f"generation_config: {path} must hold a JSON object.")
    return values
