"""The native forward pass as Python sees it: attention against the reference, what is refused, threads that rest."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headrace.kernels.cpu import load_cpu_kernels
from headrace.kernels.native import CacheShape, DecoderShape
from headrace.kernels.ops import AttentionBatch, AttentionRules, LayerKV
from headrace.kernels.paged_attention import PagedAttention

HEADS, KV_HEADS, HEAD_DIM, VOCABULARY, BLOCK_SIZE, BLOCKS = 4, 2, 16, 300, 16, 40
HIDDEN, KEY = HEADS * HEAD_DIM, KV_HEADS * HEAD_DIM
SHAPE = DecoderShape(
    hidden_size=HIDDEN,
    intermediate_size=32,
    num_heads=HEADS,
    num_kv_heads=KV_HEADS,
    head_dim=HEAD_DIM,
    vocab_size=VOCABULARY,
    norm_eps=1e-6,
    activation="silu",
    embedding_scale=1.0,
    logit_soft_cap=None,
)
RULES = AttentionRules(scale=0.3, window=None, soft_cap=None)
BATCH = {"contexts": (100, 37, 20, 130), "counts": (1, 1, 20, 70)}
"""Single tokens first, then chunks; their earlier tokens are written to the cache by a first batch."""


def random(*shape: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def matrix(library: ModuleType, pool: Any, values: NDArray[np.float32]) -> Any:
    return library.Matrix(pool, "f32", np.ascontiguousarray(values).view(np.uint8), values.shape[1])


def layer(library: ModuleType, pool: Any, rules: AttentionRules = RULES, **changes: Any) -> dict[str, Any]:
    """A layer whose residual stream becomes x + attention(x): identity, but for random queries, keys and values."""
    norms = ("attention_input", "attention_output", "mlp_input", "mlp_output", "qk", "q", "k")
    return {
        "qkv": [matrix(library, pool, random(rows, HIDDEN, seed=rows) / 4) for rows in (HIDDEN, KEY, KEY)],
        "attention_out": matrix(library, pool, np.eye(HIDDEN, dtype=np.float32)),
        "gate_up": [matrix(library, pool, np.zeros((64, HIDDEN), np.float32))],
        "down": matrix(library, pool, np.zeros((HIDDEN, 32), np.float32)),
        **{f"{name}_bias": None for name in ("qkv", "attention_out", "gate_up", "down")},
        **{f"{name}_norm": None for name in norms},
        "rotation": 0,
        "scale": rules.scale,
        "window": rules.window,
        "soft_cap": rules.soft_cap,
        **changes,
    }


def decoder(library: ModuleType, pool: Any, rules: AttentionRules = RULES, **changes: Any) -> Any:
    made = library.Decoder(pool, **{name: getattr(SHAPE, name) for name in SHAPE.__slots__})
    made.set_ends(matrix(library, pool, embedding()), np.ones(HIDDEN, np.float32), None)
    made.add_layer(**layer(library, pool, rules, **changes))
    return made


def embedding() -> NDArray[np.float32]:
    return random(VOCABULARY, HIDDEN, seed=9) / 4


def new_cache(library: ModuleType, kind: str = "f32") -> Any:
    size = library.KvCache.block_bytes(kind, BLOCK_SIZE, KV_HEADS, HEAD_DIM)
    return library.KvCache(np.full((BLOCKS, 1, 2, size), 255, np.uint8), kind, BLOCK_SIZE, KV_HEADS, HEAD_DIM)


def tables() -> NDArray[np.int64]:
    """Every sequence's blocks, scattered."""
    return np.random.default_rng(3).permutation(BLOCKS)[:36].reshape(4, 9).astype(np.int64)


def batch(contexts: tuple[int, ...], counts: tuple[int, ...], ids: NDArray[np.int64]) -> dict[str, Any]:
    """Arguments of `forward`; `ids` [sequences, positions]."""
    spans = [np.arange(context - count, context) for context, count in zip(contexts, counts, strict=True)]
    table = tables()[: len(counts)]
    slots = [table[row, span // BLOCK_SIZE] * BLOCK_SIZE + span % BLOCK_SIZE for row, span in enumerate(spans)]
    tokens = sum(counts)
    return {
        "token_ids": np.concatenate([ids[row, span] for row, span in enumerate(spans)]),
        "angles": [np.zeros((tokens, HEAD_DIM // 2), np.float32)],
        "magnitudes": [1.0],
        "slot_mapping": np.concatenate(slots),
        "block_tables": table,
        "context_lens": np.array(contexts),
        "query_start": np.cumsum([0, *counts]),
        "output_start": np.cumsum([0, *counts]),
        "hidden": np.empty((tokens, HIDDEN), np.float32),
    }


def token_ids() -> NDArray[np.int64]:
    return np.random.default_rng(4).integers(0, VOCABULARY, (4, 130))


def expected(ids: NDArray[np.int64], rules: AttentionRules) -> NDArray[np.float32]:
    """What the reference makes of `BATCH` with the same weights."""
    x = torch.from_numpy(embedding())[torch.from_numpy(ids)]
    keys, values = (torch.zeros(BLOCKS, BLOCK_SIZE, KV_HEADS, HEAD_DIM) for _ in range(2))
    projections = [torch.from_numpy(random(rows, HIDDEN, seed=rows) / 4) for rows in (HIDDEN, KEY, KEY)]
    position = torch.arange(ids.shape[1])
    for row, table in enumerate(torch.from_numpy(tables())):
        slots = table[position // BLOCK_SIZE] * BLOCK_SIZE + position % BLOCK_SIZE
        keys.flatten(0, 1)[slots] = (x[row] @ projections[1].T).unflatten(1, (KV_HEADS, HEAD_DIM))
        values.flatten(0, 1)[slots] = (x[row] @ projections[2].T).unflatten(1, (KV_HEADS, HEAD_DIM))
    contexts, counts = BATCH["contexts"], BATCH["counts"]
    flat = torch.cat([x[row, end - count : end] for row, (end, count) in enumerate(zip(contexts, counts, strict=True))])
    description = AttentionBatch(
        positions=torch.cat([position[end - count : end] for end, count in zip(contexts, counts, strict=True)]),
        slot_mapping=torch.from_numpy(batch(contexts, counts, ids)["slot_mapping"]),
        block_tables=torch.from_numpy(tables()),
        context_lens=torch.tensor(contexts),
        query_start=[0, *np.cumsum(counts).tolist()],
        num_decodes=2,
    )
    queries = (flat @ projections[0].T).unflatten(1, (HEADS, HEAD_DIM))
    attended = PagedAttention(description, rules, BLOCK_SIZE)(queries, LayerKV(keys, values))
    out = flat + attended
    return torch.nn.functional.rms_norm(out, (HIDDEN,), None, 1e-6).numpy()


@pytest.mark.parametrize(("kind", "tolerance"), [("f32", 2e-5), ("f16", 1e-2), ("bf16", 8e-2), ("i8", 8e-2)])
@pytest.mark.parametrize(
    "rules", [RULES, replace(RULES, window=33), replace(RULES, soft_cap=4.0)], ids=["full", "window", "soft_cap"]
)
def test_attention(library: ModuleType, pool: Any, kind: str, tolerance: float, rules: AttentionRules) -> None:
    model, cache, ids = decoder(library, pool, rules), new_cache(library, kind), token_ids()
    earlier = [context - count for context, count in zip(BATCH["contexts"], BATCH["counts"], strict=True)]
    # A sequence that has no earlier tokens writes some that the second batch writes again.
    first = tuple(count or 20 for count in earlier)
    model.forward(**batch(first, first, ids), kv=cache)
    arguments = batch(BATCH["contexts"], BATCH["counts"], ids)
    model.forward(**arguments, kv=cache)
    np.testing.assert_allclose(arguments["hidden"], expected(ids, rules), rtol=0, atol=tolerance)


def test_logits_are_products_with_the_embedding(library: ModuleType, pool: Any) -> None:
    hidden, out = random(3, HIDDEN), np.empty((3, VOCABULARY), np.float32)
    decoder(library, pool).logits(hidden, out)
    np.testing.assert_allclose(out, hidden @ embedding().T, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("token_ids", VOCABULARY, "token id"),
        ("token_ids", -1, "token id"),
        ("slot_mapping", BLOCKS * BLOCK_SIZE, "slot"),
        ("slot_mapping", -1, "slot"),
        ("block_tables", BLOCKS, "block"),
        ("block_tables", -1, "block"),
        ("context_lens", 9 * BLOCK_SIZE + 1, "block table is too short"),
        ("context_lens", 0, "context"),
        ("query_start", 2, "query_start"),
    ],
)
def test_a_batch_that_is_refused(library: ModuleType, name: str, value: int, message: str) -> None:
    pool = library.Pool(1)
    arguments = batch((5, 7), (5, 7), token_ids())
    arguments[name].flat[0] = value
    with pytest.raises(ValueError, match=message):
        decoder(library, pool).forward(**arguments, kv=new_cache(library))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"hidden": np.empty((12, 3), np.float32)}, "hidden must be"),
        ({"angles": [np.zeros((12, 9), np.float32)]}, "more dimensions to rotate"),
        ({"angles": [np.zeros((11, 8), np.float32)]}, "angles must be"),
        ({"angles": [], "magnitudes": []}, "rotation is missing"),
        ({"magnitudes": []}, "magnitude"),
        ({"query_start": np.array([0, 12])}, "query_start"),
        ({"output_start": np.array([0, 12])}, "output_start"),
        ({"output_start": np.array([0, 6, 12])}, "more tokens are asked for"),
        ({"output_start": np.array([0, 1, 2])}, "hidden must be"),
    ],
)
def test_arrays_that_are_refused(library: ModuleType, changes: dict[str, Any], message: str) -> None:
    arguments = batch((5, 7), (5, 7), token_ids()) | changes
    with pytest.raises(ValueError, match=message):
        decoder(library, library.Pool(1)).forward(**arguments, kv=new_cache(library))


def test_layers_that_are_refused(library: ModuleType) -> None:
    pool = library.Pool(1)
    wrong = matrix(library, pool, random(3, HIDDEN))
    for name, value in {"attention_out": wrong, "down": wrong, "qkv": [wrong], "gate_up": [wrong]}.items():
        with pytest.raises(ValueError, match=f"{name} has the wrong shape"):
            decoder(library, pool, **{name: value})
    with pytest.raises(ValueError, match="norm has the wrong size"):
        decoder(library, pool, mlp_input_norm=np.ones(3, np.float32))
    with pytest.raises(ValueError, match="q_norm and k_norm"):
        decoder(library, pool, q_norm=np.ones(HIDDEN, np.float32))
    with pytest.raises(ValueError, match="bias"):
        decoder(library, pool, down_bias=np.ones(3, np.float32))


def test_caches_that_are_refused(library: ModuleType) -> None:
    with pytest.raises(ValueError, match="multiple of 16, not 24"):
        library.KvCache.block_bytes("f32", 24, KV_HEADS, HEAD_DIM)
    with pytest.raises(ValueError, match="unknown kind of KV cache: i4"):
        library.KvCache.block_bytes("i4", 16, KV_HEADS, HEAD_DIM)
    with pytest.raises(ValueError, match="memory must be"):
        library.KvCache(np.zeros((3, 1, 2, 100), np.uint8), "f32", 16, KV_HEADS, HEAD_DIM)
    other = library.KvCache(np.zeros((3, 2, 2, 2048), np.uint8), "f32", 16, KV_HEADS, HEAD_DIM)
    with pytest.raises(ValueError, match="made for another decoder"):
        decoder(library, library.Pool(1)).forward(**batch((5,), (5,), token_ids()), kv=other)


def test_the_tree_s_own_names_reach_the_library(library: ModuleType) -> None:
    kernels = load_cpu_kernels(1)
    shape = CacheShape(kind="i8", block_size=BLOCK_SIZE, num_kv_heads=KV_HEADS, head_dim=HEAD_DIM)
    size = kernels.block_bytes(shape)
    assert size == KV_HEADS * BLOCK_SIZE * (HEAD_DIM + 4)
    kernels.paged_cache(torch.zeros(3, 1, 2, size, dtype=torch.uint8), shape)
    with pytest.raises(ValueError, match="no weights yet"):
        kernels.forward_pass(SHAPE).logits(random(1, HIDDEN), np.empty((1, VOCABULARY), np.float32))


@contextmanager
def processor_time(limit: float) -> Iterator[None]:
    before = time.process_time()
    yield
    assert time.process_time() - before < limit


def test_idle_threads_rest(library: ModuleType) -> None:
    pool = library.Pool(4)
    one = matrix(library, pool, random(512, HIDDEN))
    x, out = random(8, HIDDEN), np.empty((8, 512), np.float32)
    for _ in range(20):
        library.linear(pool, [one], None, x, out)
    with processor_time(limit=0.05):
        time.sleep(0.3)  # what is measured is what happens while nothing does
