"""Embeddings as they travel: lists of numbers, or base64 of their bytes."""

from __future__ import annotations

import base64
import binascii
import sys
from array import array

from headrace.client.call import reading
from headrace.client.errors import ProtocolError
from headrace.client.results import Embedding, Embeddings, Result, Usage

_FLOAT_BYTES = 4


class _WireEmbedding(Result, frozen=True):
    index: int
    embedding: list[float] | str


class _WireEmbeddings(Result, frozen=True):
    data: list[_WireEmbedding]
    id: str = ""
    created: int = 0
    model: str = ""
    usage: Usage | None = None


_read = reading(_WireEmbeddings)


def read_embeddings(body: bytes) -> Embeddings:
    """Either form: there are servers that do not know base64 and answer with numbers. Raises `ProtocolError`."""
    answer = _read(body)
    return Embeddings(
        data=[Embedding(index=item.index, vector=_vector(item.embedding)) for item in answer.data],
        id=answer.id,
        created=answer.created,
        model=answer.model,
        usage=answer.usage,
    )


def _vector(embedding: list[float] | str) -> list[float]:
    """Base64 is of float32 values, little-endian."""
    if isinstance(embedding, list):
        return embedding
    try:
        data = base64.b64decode(embedding, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ProtocolError(f"An embedding is not base64 ({error}).") from error
    if len(data) % _FLOAT_BYTES:
        raise ProtocolError(f"An embedding has {len(data)} bytes, which is no number of float32 values.")
    values = array("f", data)
    if sys.byteorder == "big":
        values.byteswap()
    return values.tolist()
