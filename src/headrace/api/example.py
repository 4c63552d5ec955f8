"""A first request to a server, for the pages and lines that show how to talk to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headrace.core.pooling import PoolingTask
from headrace.service.roles import GENERATE
from headrace.service.served_model import ServedModel


def first_request(models: Sequence[ServedModel]) -> tuple[str, dict[str, Any]]:
    """Path and body. To the first model that generates, else to the first."""
    model = next((model for model in models if model.can(GENERATE)), models[0])
    named = {"model": model.name}
    if model.can(PoolingTask.EMBED):
        return "/v1/embeddings", {**named, "input": "What is a headrace?"}
    if model.can(PoolingTask.CLASSIFY):
        return "/classify", {**named, "input": "What is a headrace?"}
    if model.can(GENERATE) is False:
        return "/pooling", {**named, "input": "What is a headrace?"}
    if model.config.model.tokens_only:
        return "/inference/v1/generate", {**named, "token_ids": [1, 2, 3], "sampling_params": {"max_tokens": 32}}
    if model.loaded is not None and model.loaded.template is None:
        return "/v1/completions", {**named, "prompt": "Once upon a time", "max_tokens": 32}
    return "/v1/chat/completions", {**named, "messages": [{"role": "user", "content": "Hello!"}]}
