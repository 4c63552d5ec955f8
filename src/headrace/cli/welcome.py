"""What a user sees when the server is ready."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.config.sections import HttpConfig
from headrace.core.request import EngineInfo
from headrace.service.roles import in_words
from headrace.service.served_model import ServedModel


def ready_lines(url: str, http: HttpConfig, models: Sequence[ServedModel], seconds: float) -> list[str]:
    """Where, which models, how much fits, how long it took: a line for the first model, and one for each other."""
    where = url if http.uds is None else f"{url} on {http.uds}"
    first, *others = map(_about, models)
    return [f"Ready: {where} serves {first}, in {seconds:.1f} s", *(f"       and {other}" for other in others)]


def curl_line(url: str, http: HttpConfig, path: str, body: Mapping[str, Any]) -> str:
    """A command to copy that asks the model something. Keys are never shown."""
    words = ["curl", url + path, "-H", "Content-Type: application/json"]
    if http.uds is not None:
        words[1:1] = ["--unix-socket", str(http.uds)]
    line = shlex.join([*words, "-d", json.dumps(body)])
    return f'{line} -H "Authorization: Bearer $API_KEY"' if http.api_key else line


def _about(model: ServedModel) -> str:
    if (runs := model.loaded) is None:
        return f"{model.name}, loaded on first use"
    info = runs.info
    return f"{model.name} ({info.architecture}, {info.dtype} on {info.device}), {_capacity(info)}"


def _capacity(info: EngineInfo) -> str:
    if info.pooling is None:
        return f"KV cache {info.kv_capacity} tokens"
    if info.pooling.embedding_size is not None:
        return f"vectors of {info.pooling.embedding_size}"
    return f"to {in_words(info.pooling.tasks)}"
