"""What a user sees when the server is ready."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from typing import Any

from headrace.config.sections import HttpConfig
from headrace.core.request import EngineInfo


def ready_line(url: str, http: HttpConfig, model: str, info: EngineInfo, seconds: float) -> str:
    """Where, which model, how much fits, how long it took."""
    where = url if http.uds is None else f"{url} on {http.uds}"
    return (
        f"Ready: {where} serves {model} ({info.architecture}, {info.dtype} on {info.device}), "
        f"KV cache {info.kv_capacity} tokens, in {seconds:.1f} s"
    )


def curl_line(url: str, http: HttpConfig, path: str, body: Mapping[str, Any]) -> str:
    """A command to copy that asks the model something. Keys are never shown."""
    words = ["curl", url + path, "-H", "Content-Type: application/json"]
    if http.uds is not None:
        words[1:1] = ["--unix-socket", str(http.uds)]
    line = shlex.join([*words, "-d", json.dumps(body)])
    return f'{line} -H "Authorization: Bearer $API_KEY"' if http.api_key else line
