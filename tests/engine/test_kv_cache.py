"""How much KV memory there is, and what is done to its blocks."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import pytest
import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import ConfigError
from headrace.engine import kv_cache
from headrace.engine.kv_cache import DEFAULT_CPU_TOKENS, KvCache, size_cache
from headrace.models import KvLayout

CPU = torch.device("cpu")
LAYERS, HEADS, HEAD_DIM = 3, 2, 4
SPEC = SimpleNamespace(num_layers=LAYERS, max_position=1000)
TOKEN = 2 * LAYERS * HEADS * HEAD_DIM * 4
"""Bytes of a token in float32."""


def layout(block_size: int, dtype: torch.dtype = torch.float32) -> KvLayout:
    block_bytes = block_size * HEADS * HEAD_DIM * dtype.itemsize
    return KvLayout(dtype="", block_size=block_size, block_bytes=block_bytes, float_dtype=dtype)


def size(**config: object) -> tuple[int, int]:
    known = EngineConfig(**config)
    return size_cache(SPEC, known, layout(known.block_size), CPU)


def test_smaller_blocks_make_more_of_them() -> None:
    config = EngineConfig(kv_cache_memory_bytes=100 * 16 * TOKEN)
    assert size_cache(SPEC, config, layout(16, torch.bfloat16), CPU) == (200, 1000)


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


def test_several_engines_share_the_default_and_each_has_8k_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kv_cache, "usable_memory", lambda: 10 * 2000 * 16 * TOKEN)
    config = EngineConfig(block_size=16)
    assert size_cache(SPEC, config, layout(16), CPU, 0.5)[0] == 1000
    assert size_cache(SPEC, config, layout(16), CPU, 0.001)[0] * 16 == DEFAULT_CPU_TOKENS
    told = EngineConfig(block_size=16, kv_cache_memory_bytes=700 * 16 * TOKEN)
    assert size_cache(SPEC, told, layout(16), CPU, 0.5)[0] == 700


def cache(num_blocks: int = 6, dtype: torch.dtype = torch.float32) -> KvCache:
    return KvCache(layout(2, dtype), num_layers=LAYERS, num_blocks=num_blocks, device=CPU)


def test_no_room_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(ConfigError, match=f"{1 << 51} tokens.*lower --kv-cache-memory-bytes"):
        cache(num_blocks=1 << 50)


def test_memory_is_zero_and_aligned() -> None:
    memory = cache().memory
    assert memory.shape == (7, LAYERS, 2, 2 * HEADS * HEAD_DIM * 4)
    assert memory.data_ptr() % 64 == 0
    assert not memory.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_are_copied_in_every_layer(dtype: torch.dtype) -> None:
    kv = cache(dtype=dtype)
    kv.memory.random_(0, 256)
    before = kv.memory.clone()
    kv.copy_blocks([(1, 4), (1, 5), (2, 6)])
    kv.copy_blocks([])
    assert torch.equal(kv.memory, before[[0, 1, 2, 3, 1, 1, 2]])


def test_scrubbing_touches_only_what_is_not_finite() -> None:
    kv = cache()
    numbers = kv.memory.view(torch.float32)
    numbers.fill_(1.0)
    numbers[2, 1, 0, 5] = float("nan")
    numbers[3, 2, 1, 7] = float("-inf")
    numbers[4, 0, 1] = float("inf")
    kv.scrub([2, 3])
    assert numbers[2, 1, 0, 5] == numbers[3, 2, 1, 7] == 0
    assert numbers[4, 0, 1].isinf().all()
    assert (numbers == 1).sum() == numbers.numel() - 2 - numbers[4, 0, 1].numel()


def test_scrubbing_leaves_integers_alone() -> None:
    """int8 keys with their scales behind them: all bits set is -1 in the one and NaN in the other."""
    scales = KvLayout(dtype="int8", block_size=2, block_bytes=24, float_dtype=torch.float32, floats_from=16)
    kv = KvCache(scales, num_layers=LAYERS, num_blocks=6, device=CPU)
    kv.memory.fill_(0xFF)
    kv.scrub([2])
    assert (kv.memory[2, :, :, :16] == 0xFF).all()
    assert not kv.memory[2, :, :, 16:].any()
    assert (kv.memory[[0, 1, 3, 4, 5, 6]] == 0xFF).all()
