"""Scores of pairs from vectors: of one for each text, or of one for each token. Vectors are little-endian float32."""

from __future__ import annotations

import numpy as np

from headrace.service.pooling_types import Pooled


def cosine(first: Pooled, second: Pooled) -> float:
    """Of two vectors; from -1 to 1. 0 if one of them has no direction."""
    left, right = _array(first), _array(second)
    lengths = float(np.linalg.norm(left) * np.linalg.norm(right))
    if not lengths:
        return 0.0
    return min(max(float(left @ right) / lengths, -1.0), 1.0)  # rounding can lead a little beyond


def late_interaction(query: Pooled, document: Pooled) -> float:
    """MaxSim: for each token of the query the best dot product with one of the document, all added up."""
    return float((_array(query) @ _array(document).T).max(axis=1).sum())


def _array(pooled: Pooled) -> np.ndarray:
    return np.frombuffer(pooled.data, "<f4").reshape(pooled.shape).astype(np.float64)
