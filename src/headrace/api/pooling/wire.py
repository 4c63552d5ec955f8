"""Bodies of responses."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.api.usage import Usage
from headrace.api.wire import Wire


class EmbeddingItem(Wire, kw_only=True):
    """`embedding`: numbers, or bytes, which are written as base64."""

    index: int
    object: str = "embedding"
    embedding: list[float] | bytes


class PoolingItem(Wire, kw_only=True):
    """`data`: numbers, lists of numbers for tasks per token, or bytes, which are written as base64."""

    index: int
    object: str = "pooling"
    data: list[Any] | bytes


class ClassItem(Wire, kw_only=True):
    """`label`: the name of the likeliest class, null if it has none."""

    index: int
    label: str | None
    probs: list[float]
    num_classes: int


class ScoreItem(Wire, kw_only=True):
    index: int
    object: str = "score"
    score: float


class Listing(Wire, kw_only=True):
    """An answer with one item for each input. `data` are the items, written already."""

    id: str
    object: str = "list"
    created: int
    model: str
    data: list[msgspec.Raw]
    usage: Usage


class RankedDocument(Wire, kw_only=True):
    text: str
    multi_modal: None = None


class RankedItem(Wire, kw_only=True):
    index: int
    document: RankedDocument
    relevance_score: float


class RankUsage(Wire, kw_only=True):
    prompt_tokens: int
    total_tokens: int


class Ranking(Wire, kw_only=True):
    id: str
    model: str
    usage: RankUsage
    results: list[RankedItem]


class BytesItem(Wire, kw_only=True):
    """Where a vector lies in a body of bytes: from `start` up to `end`."""

    index: int
    embed_dtype: str
    endianness: str
    start: int
    end: int
    shape: list[int]


class BytesMetadata(Wire, kw_only=True):
    id: str
    created: int
    model: str
    data: list[BytesItem]
    usage: Usage
