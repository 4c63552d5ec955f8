"""Headrace serves language models.

    from headrace import LLM, SamplingParams

Names are imported when they are first used: `import headrace` alone costs nothing and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headrace.client import AsyncClient, Client
    from headrace.core.sampling import SamplingParams
    from headrace.core.structured import StructuredOutputsParams
    from headrace.llm import LLM
    from headrace.outputs import (
        ClassificationRequestOutput,
        CompletionOutput,
        EmbeddingRequestOutput,
        Logprob,
        PoolingRequestOutput,
        RequestOutput,
        ScoringRequestOutput,
    )

__version__ = "0.1.0"

__all__ = [
    "LLM",
    "AsyncClient",
    "ClassificationRequestOutput",
    "Client",
    "CompletionOutput",
    "EmbeddingRequestOutput",
    "Logprob",
    "PoolingRequestOutput",
    "RequestOutput",
    "SamplingParams",
    "ScoringRequestOutput",
    "StructuredOutputsParams",
    "__version__",
]

_HOME = {
    "LLM": "headrace.llm",
    "AsyncClient": "headrace.client",
    "ClassificationRequestOutput": "headrace.outputs",
    "Client": "headrace.client",
    "CompletionOutput": "headrace.outputs",
    "EmbeddingRequestOutput": "headrace.outputs",
    "Logprob": "headrace.outputs",
    "PoolingRequestOutput": "headrace.outputs",
    "RequestOutput": "headrace.outputs",
    "SamplingParams": "headrace.core.sampling",
    "ScoringRequestOutput": "headrace.outputs",
    "StructuredOutputsParams": "headrace.core.structured",
}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
