"""What came of a request, as the bodies of responses."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import msgspec
from fastapi import Response

from headrace.api.pooling.vectors import VectorFormat
from headrace.api.pooling.wire import (
    BytesItem,
    BytesMetadata,
    ClassItem,
    Listing,
    RankedDocument,
    RankedItem,
    Ranking,
    RankUsage,
    ScoreItem,
)
from headrace.api.usage import Usage
from headrace.api.wire import Wire, encode
from headrace.service import Pooled, Scores

_WRITTEN_IN_PLACE = 256 * 1024
"""Bytes of vectors; more are written in a thread, so that they do not hold up the event loop."""

WriteItem = Callable[[int, Pooled], Wire]


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer says of itself. `created` in Unix seconds."""

    id: str
    created: int
    model: str


async def vectors(head: Head, pooled: Sequence[Pooled], how: VectorFormat, write: WriteItem) -> Response:
    """The vectors of each input, as `write` makes them unless they are wanted as bytes."""
    if how.as_bytes:
        return _vector_bytes(head, pooled, how)
    size = sum(len(each.data) for each in pooled)
    if size <= _WRITTEN_IN_PLACE:
        return _json_response(_listing(head, pooled, write))
    return _json_response(await asyncio.to_thread(_listing, head, pooled, write))


def classes(head: Head, pooled: Sequence[Pooled], labels: Sequence[str]) -> Response:
    """The probabilities of each input's classes, which `labels` names ("" for one without a name)."""

    def write(index: int, each: Pooled) -> ClassItem:
        probs = each.values()
        best = max(range(len(probs)), key=probs.__getitem__)
        return ClassItem(index=index, label=labels[best] or None, probs=probs, num_classes=len(probs))

    return _json_response(_listing(head, pooled, write))


def scores(head: Head, found: Scores) -> Response:
    items: Iterable[Wire] = (ScoreItem(index=index, score=score) for index, score in enumerate(found.scores))
    return _json_response(_written(head, items, found.prompt_tokens))


def ranking(head: Head, found: Scores, documents: Sequence[str], top_n: int) -> Response:
    """The best `top_n` documents, best first; 0: all of them."""
    order = sorted(range(len(documents)), key=lambda index: -found.scores[index])
    return _json_response(
        encode(
            Ranking(
                id=head.id,
                model=head.model,
                usage=RankUsage(prompt_tokens=found.prompt_tokens, total_tokens=found.prompt_tokens),
                results=[
                    RankedItem(
                        index=index,
                        document=RankedDocument(text=documents[index]),
                        relevance_score=found.scores[index],
                    )
                    for index in order[: top_n or None]
                ],
            )
        )
    )


def _json_response(body: bytes) -> Response:
    return Response(body, media_type="application/json")


def _vector_bytes(head: Head, pooled: Sequence[Pooled], how: VectorFormat) -> Response:
    """The vectors one after another; what lies where stands in a header."""
    packed = [how.packed(each) for each in pooled]
    headers = {}
    if how.with_metadata:
        items, start = [], 0
        for index, (each, data) in enumerate(zip(pooled, packed, strict=True)):
            end = start + len(data)
            items.append(
                BytesItem(
                    index=index,
                    embed_dtype=how.dtype,
                    endianness=how.endianness,
                    start=start,
                    end=end,
                    shape=each.shape,
                )
            )
            start = end
        usage = _usage(sum(len(each.prompt_ids) for each in pooled))
        metadata = BytesMetadata(id=head.id, created=head.created, model=head.model, data=items, usage=usage)
        headers["metadata"] = json.dumps(msgspec.to_builtins(metadata))  # unlike msgspec's, all ASCII
    return Response(b"".join(packed), media_type="application/octet-stream", headers=headers)


def _listing(head: Head, pooled: Sequence[Pooled], write: WriteItem) -> bytes:
    prompt_tokens = sum(len(each.prompt_ids) for each in pooled)
    return _written(head, (write(index, each) for index, each in enumerate(pooled)), prompt_tokens)


def _written(head: Head, items: Iterable[Wire], prompt_tokens: int) -> bytes:
    """Item by item, so that other threads get their turns in between."""
    return encode(
        Listing(
            id=head.id,
            created=head.created,
            model=head.model,
            data=[msgspec.Raw(encode(item)) for item in items],
            usage=_usage(prompt_tokens),
        )
    )


def _usage(prompt_tokens: int) -> Usage:
    return Usage(prompt_tokens=prompt_tokens, completion_tokens=0, total_tokens=prompt_tokens)
