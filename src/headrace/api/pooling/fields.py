"""Parameters of this family that this server knows and does not implement, and those of other routes."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.api.fields import INFRASTRUCTURE, Harmless, empty, never, one_of

_EVERYWHERE: Mapping[str, Harmless] = {
    **INFRASTRUCTURE,
    "mm_processor_kwargs": empty,
    "media_io_kwargs": empty,
}

VECTORS = _EVERYWHERE
"""By name, with the values that would change nothing; for bodies that say how vectors are written."""

NUMBERS: Mapping[str, Harmless] = {
    **_EVERYWHERE,
    "encoding_format": one_of("float"),
    "embed_dtype": one_of("float32"),
    "endianness": one_of("native"),
    "dimensions": never,
}
"""For routes that answer with numbers that are no vectors."""

RERANK: Mapping[str, Harmless] = {**NUMBERS, "relevant_spans": empty}
"""For /rerank, with what Cohere's clients may ask for."""

POOLING: Mapping[str, Harmless] = {**_EVERYWHERE, "dimensions": never}
"""For /pooling, which never shortens vectors."""
