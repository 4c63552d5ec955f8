"""What `--pooler-config` may say: how hidden states become vectors or scores, where a model's files are overruled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.core.errors import ConfigError
from headrace.core.pooling import PoolingMode, PoolingTask

_MODES = {"CLS": PoolingMode.CLS, "LAST": PoolingMode.LAST, "MEAN": PoolingMode.MEAN}
_EVERY_TOKEN = "ALL"
_OLD_SWITCHES = ("normalize", "softmax", "activation")
"""What `use_activation` was called before it was one key for all tasks."""
_KEYS = (
    *("pooling_type", "seq_pooling_type", "tok_pooling_type", "use_activation", "dimensions", "task"),
    *("logit_mean", "logit_sigma", *_OLD_SWITCHES),
)
_NOT_IMPLEMENTED = ("enable_chunked_processing", "max_embed_len", "step_tag_id", "returned_token_ids")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolerConfig:
    """None: as the model's files have it. A score z becomes (z - `logit_mean`) / `logit_sigma` before its activation.

    `task` is the one for requests that name none. `dimensions` is how many values vectors have, unless a request says.
    """

    mode: PoolingMode | None = None
    task: PoolingTask | None = None
    use_activation: bool | None = None
    dimensions: int | None = None
    logit_mean: float | None = None
    logit_sigma: float | None = None


def read_pooler_config(given: Mapping[str, Any]) -> PoolerConfig:
    """Raises `ConfigError`, naming the key and what is allowed."""
    for key, value in given.items():
        if key in _NOT_IMPLEMENTED and value not in (None, False):
            raise ConfigError(f"--pooler-config: {key} is not implemented yet.")
        if key not in _KEYS and key not in _NOT_IMPLEMENTED:
            raise ConfigError(f"--pooler-config: unknown key {key!r}; known: {', '.join(_KEYS)}.")
    present = {key: value for key, value in given.items() if value is not None}
    _pooling_type(present, "tok_pooling_type", (_EVERY_TOKEN,))
    return PoolerConfig(
        mode=_mode(present),
        task=_task(present),
        use_activation=_switch(present),
        dimensions=_dimensions(present),
        logit_mean=_number(present, "logit_mean"),
        logit_sigma=_number(present, "logit_sigma"),
    )


def _mode(given: Mapping[str, Any]) -> PoolingMode | None:
    both = _pooling_type(given, "pooling_type", (*_MODES, _EVERY_TOKEN))
    sequence = _pooling_type(given, "seq_pooling_type", tuple(_MODES))
    if sequence is not None and both not in (None, sequence):
        raise ConfigError(
            f"--pooler-config: pooling_type {both} and seq_pooling_type {sequence} contradict each other."
        )
    return _MODES.get(sequence or both or "")


def _pooling_type(given: Mapping[str, Any], key: str, allowed: tuple[str, ...]) -> str | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, str) or value.upper() not in allowed:
        raise ConfigError(f"--pooler-config: {key} must be {' or '.join(allowed)}, got {value!r}.")
    return value.upper()


def _task(given: Mapping[str, Any]) -> PoolingTask | None:
    value = given.get("task")
    if value is None:
        return None
    if value not in tuple(PoolingTask):
        raise ConfigError(f"--pooler-config: task must be one of {', '.join(PoolingTask)}, got {value!r}.")
    return PoolingTask(value)


def _switch(given: Mapping[str, Any]) -> bool | None:
    values = {key: given[key] for key in ("use_activation", *_OLD_SWITCHES) if key in given}
    for key, value in values.items():
        if not isinstance(value, bool):
            raise ConfigError(f"--pooler-config: {key} must be true or false, got {value!r}.")
    if len(set(values.values())) > 1:
        raise ConfigError(f"--pooler-config: {' and '.join(values)} contradict each other.")
    return next(iter(values.values()), None)


def _dimensions(given: Mapping[str, Any]) -> int | None:
    value = given.get("dimensions")
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ConfigError(f"--pooler-config: dimensions must be at least 1, got {value!r}.")
    return value


def _number(given: Mapping[str, Any], key: str) -> float | None:
    value = given.get(key)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ConfigError(f"--pooler-config: {key} must be a number, got {value!r}.")
    if key == "logit_sigma" and value == 0:
        raise ConfigError("--pooler-config: logit_sigma must not be 0.")
    return float(value)
