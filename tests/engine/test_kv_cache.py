"""How much KV memory there is, and what is done to its blocks."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import ConfigError
from headrace.engine import kv_cache
from headrace.engine.kv_cache import DEFAULT_CPU_TOKENS, KvCache, bytes_per_token, size_cache

CPU = torch.device("cpu")
SPEC = SimpleNamespace(num_layers=3, num_kv_heads=2, head_dim=4, max_position=1000)
TOKEN = 2 * 3 * 2 * 4 * 4
"""Bytes of a token in float32."""


def size(spec: SimpleNamespace = SPEC, **config: object) -> tuple[int, int]:
    return size_cache(spec, EngineConfig(**config), dtype=torch.float32, device=CPU)


def test_bytes_of_a_token() -> None:
    assert bytes_per_token(SPEC, torch.float32) == TOKEN
    assert bytes_per_token(SPEC, torch.bfloat16) == TOKEN // 2


def test_whole_blocks_that_fit() -> None:
    assert size(kv_cache_memory_bytes=100 * 16 * TOKEN) == (100, 1000)
    assert size(kv_cache_memory_bytes=100 * 16 * TOKEN - 1) == (99, 1000)
    assert size(kv_cache_memory_bytes=100 * 16 * TOKEN, block_size=32) == (50, 1000)


def test_a_context_that_does_not_fit_is_cut_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert size(kv_cache_memory_bytes=10 * 16 * TOKEN) == (10, 160)
    needed = int(caplog.messages[0].split("--kv-cache-memory-bytes ")[1].split()[0])
    caplog.clear()
    assert size(kv_cache_memory_bytes=needed)[1] == 1000
    assert size(kv_cache_memory_bytes=10 * 16 * TOKEN, max_model_len=-1) == (10, 160)
    assert caplog.messages == []


def test_a_length_that_was_asked_for_fits_or_is_refused() -> None:
    assert size(kv_cache_memory_bytes=10 * 16 * TOKEN, max_model_len=160) == (10, 160)
    with pytest.raises(ConfigError, match=f"holds 160 tokens.*at least {11 * 16 * TOKEN}"):
        size(kv_cache_memory_bytes=10 * 16 * TOKEN, max_model_len=161)
    with pytest.raises(ConfigError, match="more than the 1000 tokens"):
        size(max_model_len=1001)
    with pytest.raises(ConfigError, match=f"at least {16 * TOKEN} bytes"):
        size(kv_cache_memory_bytes=16 * TOKEN - 1)


def test_the_default_is_8k_tokens_or_a_tenth_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "usable_memory", lambda: 0)
    assert size()[0] * 16 == DEFAULT_CPU_TOKENS
    monkeypatch.setattr(kv_cache, "usable_memory", lambda: 10 * 2000 * 16 * TOKEN)
    assert size()[0] == 2000


def cache(num_blocks: int = 6, dtype: torch.dtype = torch.float32) -> KvCache:
    return KvCache(SPEC, num_blocks=num_blocks, block_size=2, dtype=dtype, device=CPU)


def test_no_room_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match="lower --kv-cache-memory-bytes"):
        cache(num_blocks=1 << 50)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_copied_in_every_layer(dtype: torch.dtype) -> None:
    kv = cache(dtype=dtype)
    assert kv.layers[0].keys.shape == (7, 2, 2, 4)
    for index, layer in enumerate(kv.layers):
        for block in range(7):
            layer.keys[block] = 100 * index + block
            layer.values[block] = -100 * index - block
    before = [(layer.keys.clone(), layer.values.clone()) for layer in kv.layers]
    kv.copy_blocks([(1, 4), (1, 5), (2, 6)])
    kv.copy_blocks([])
    origin = [0, 1, 2, 3, 1, 1, 2]
    for layer, (keys, values) in zip(kv.layers, before, strict=True):
        assert torch.equal(layer.keys, keys[origin])
        assert torch.equal(layer.values, values[origin])


def test_scrubbing_touches_only_what_is_not_finite() -> None:
    kv = cache()
    for layer in kv.layers:
        layer.keys.fill_(1.0)
        layer.values.fill_(2.0)
    kv.layers[1].keys[2, 0] = float("nan")
    kv.layers[2].values[3, 1] = float("-inf")
    kv.layers[0].values[4] = float("inf")
    kv.scrub([2, 3])
    assert kv.layers[1].keys[2].tolist() == [[[0.0] * 4] * 2, [[1.0] * 4] * 2]
    assert kv.layers[2].values[3].tolist() == [[[2.0] * 4] * 2, [[0.0] * 4] * 2]
    assert kv.layers[0].values[4].isinf().all()
    assert kv.layers[0].keys.eq(1.0).all()
