"""The native encoder as Python hands things over to it: what is refused. What it computes: tests/models."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

HIDDEN, HEADS, HEAD_DIM, INNER = 8, 2, 4, 6


def matrix(library: ModuleType, pool: Any, rows: int, columns: int) -> Any:
    return library.Matrix(pool, "f32", np.ones((rows, columns), np.float32).view(np.uint8), columns)


def table(library: ModuleType, pool: Any, rows: int, columns: int = HIDDEN) -> Any:
    return library.RowTable(pool, "f32", np.ones((rows, columns), np.float32).view(np.uint8), columns)


def encoder(library: ModuleType, pool: Any, **changes: Any) -> Any:
    shape = {
        "hidden_size": HIDDEN,
        "embedding_size": HIDDEN,
        "intermediate_size": INNER,
        "num_heads": HEADS,
        "head_dim": HEAD_DIM,
        "norm_eps": 1e-6,
        "activation": "gelu",
        "gated": False,
        "norm_of_sum": True,
        "position_offset": 0,
    }
    return library.Encoder(pool, **(shape | changes))


def embeddings(library: ModuleType, pool: Any, **changes: Any) -> dict[str, Any]:
    given = {
        "tokens": table(library, pool, 20),
        "types": None,
        "positions": None,
        "norm": np.ones(HIDDEN, np.float32),
        "norm_bias": None,
        "projection": None,
        "projection_bias": None,
    }
    return given | changes


def layer(library: ModuleType, pool: Any, **changes: Any) -> dict[str, Any]:
    given = {
        "qkv": [matrix(library, pool, 3 * HIDDEN, HIDDEN)],
        "attention_out": matrix(library, pool, HIDDEN, HIDDEN),
        "up": [matrix(library, pool, INNER, HIDDEN)],
        "down": matrix(library, pool, HIDDEN, INNER),
        **{f"{name}_bias": None for name in ("qkv", "attention_out", "up", "down", "attention_norm", "mlp_norm")},
        "attention_norm": np.ones(HIDDEN, np.float32),
        "mlp_norm": np.ones(HIDDEN, np.float32),
        "rotation": None,
        "window": None,
    }
    return given | changes


def test_what_does_not_belong_together_is_refused(library: ModuleType, pool: Any) -> None:
    made = encoder(library, pool)
    with pytest.raises(ValueError, match="sizes must be positive"):
        encoder(library, pool, num_heads=0)
    with pytest.raises(ValueError, match="unknown activation: swish"):
        encoder(library, pool, activation="swish")
    with pytest.raises(ValueError, match="embedding_size columns"):
        made.set_embeddings(**embeddings(library, pool, types=table(library, pool, 2, 4)))
    with pytest.raises(ValueError, match="a projection must be"):
        made.set_embeddings(**embeddings(library, pool, projection=matrix(library, pool, HIDDEN, HIDDEN)))
    with pytest.raises(ValueError, match="norm of the embeddings"):
        made.set_embeddings(**embeddings(library, pool, norm=np.ones(3, np.float32)))
    with pytest.raises(ValueError, match="a row for each head"):
        made.set_distance_bias(np.zeros((3, 5), np.float32))
    with pytest.raises(ValueError, match="an odd number"):
        made.set_distance_bias(np.zeros((HEADS, 4), np.float32))
    with pytest.raises(ValueError, match="final norm does not belong"):
        made.set_final_norm(np.ones(HIDDEN, np.float32), None)
    with pytest.raises(ValueError, match="more dimensions to rotate"):
        made.add_rotation(np.ones((5, 3), np.float32), np.ones((5, 3), np.float32))
    for wrong, message in {
        "attention_out": "attention_out has the wrong shape",
        "down": "down has the wrong shape",
    }.items():
        with pytest.raises(ValueError, match=message):
            made.add_layer(**layer(library, pool, **{wrong: matrix(library, pool, HIDDEN, HIDDEN + 1)}))
    with pytest.raises(ValueError, match="a norm has the wrong size"):
        made.add_layer(**layer(library, pool, attention_norm=None))
    with pytest.raises(ValueError, match="a rotation is missing"):
        made.add_layer(**layer(library, pool, rotation=0))


def test_tables_hold_floats(library: ModuleType, pool: Any) -> None:
    with pytest.raises(ValueError, match="holds floats"):
        library.RowTable(pool, "q8_0", np.zeros((2, 34), np.uint8), 32)
    with pytest.raises(ValueError, match="takes 32 bytes, not 30"):
        library.RowTable(pool, "f32", np.zeros((2, 30), np.uint8), HIDDEN)
    with pytest.raises(ValueError, match="a row and a column"):
        library.RowTable(pool, "f32", np.zeros((0, 32), np.uint8), HIDDEN)


def test_batches_that_make_no_sense_are_refused(library: ModuleType, pool: Any) -> None:
    made = encoder(library, pool)
    ids, starts = np.array([1, 2, 3]), np.array([0, 3])
    hidden = np.zeros((3, HIDDEN), np.float32)
    with pytest.raises(ValueError, match="no weights yet"):
        made.forward(ids, None, starts, hidden)
    made.set_embeddings(**embeddings(library, pool))
    made.add_layer(**layer(library, pool))
    with pytest.raises(ValueError, match="token_type_ids must be"):
        made.forward(ids, np.array([0]), starts, hidden)
    with pytest.raises(ValueError, match="no such type"):
        made.forward(ids, np.zeros(3, np.int64), starts, hidden)
    with pytest.raises(ValueError, match="hidden must be"):
        made.forward(ids, None, starts, hidden[:2])
    for wrong in ([0], [0, 2], [1, 3], [0, 3, 3], [0, 4, 3]):
        with pytest.raises(ValueError, match=r"starts|a sequence needs a token"):
            made.forward(ids, None, np.array(wrong), hidden)
    with pytest.raises(TypeError):  # this would be written to a copy
        made.forward(ids, None, starts, hidden.astype(np.float64))
    made.forward(ids, None, starts, hidden)
    assert np.isfinite(hidden).all()
