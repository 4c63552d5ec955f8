"""The memory behind the block ids: how much of it there is, and the tensors it is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence

import numpy as np
import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import ConfigError
from headrace.engine.machine import usable_memory
from headrace.kernels.ops import LayerKV
from headrace.models.spec import DecoderSpec

log = logging.getLogger(__name__)

DEFAULT_CPU_TOKENS = 8192
DEFAULT_CPU_SHARE = 0.10
DEFAULT_CUDA_SHARE = 0.85
"""Of what is free after loading; the rest is for activations."""


class KvCache:
    """Keys and values of every layer, in `num_blocks` blocks beside the null block 0."""

    def __init__(
        self, spec: DecoderSpec, *, num_blocks: int, block_size: int, dtype: torch.dtype, device: torch.device
    ) -> None:
        shape = (spec.num_layers, 2, num_blocks + 1, block_size, spec.num_kv_heads, spec.head_dim)
        try:
            memory = _zeros(shape, dtype, device)
        except (MemoryError, torch.OutOfMemoryError):
            raise ConfigError(
                f"There is no room for a KV cache of {num_blocks * block_size} tokens, which takes "
                f"{num_blocks * block_size * bytes_per_token(spec, dtype)} bytes: lower --kv-cache-memory-bytes."
            ) from None
        self.layers = [LayerKV(keys=layer[0], values=layer[1]) for layer in memory]
        self._memory = memory

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, all layers at once. No source is also a target.

        Takes no memory, so that it cannot fail where a step may: the targets can belong to sequences that are not in
        the step and live on.
        """
        for source, target in copies:
            self._memory[:, :, target].copy_(self._memory[:, :, source])

    def scrub(self, block_ids: Iterable[int]) -> None:
        """Make whatever is not finite in these blocks 0, for who gets them next: attention weighs the slots of a block
        that are not its own by zero, and zero times NaN is NaN. Finite values, which others may share, stay.
        """
        for block in block_ids:
            self._memory[:, :, block].nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def bytes_per_token(spec: DecoderSpec, dtype: torch.dtype) -> int:
    """Bytes of KV cache that one token takes over all layers."""
    return 2 * spec.num_layers * spec.num_kv_heads * spec.head_dim * dtype.itemsize


def size_cache(spec: DecoderSpec, config: EngineConfig, *, dtype: torch.dtype, device: torch.device) -> tuple[int, int]:
    """How many blocks to keep and how long a sequence may get: `(num_blocks, max_model_len)`.

    Raises `ConfigError` if a sequence of the length asked for does not fit.
    """
    per_block = bytes_per_token(spec, dtype) * config.block_size
    memory = config.kv_cache_memory_bytes
    if memory is None:
        memory = _default_memory(bytes_per_token(spec, dtype), device)
    num_blocks = memory // per_block
    capacity = num_blocks * config.block_size
    if capacity < config.block_size:
        raise ConfigError(
            f"--kv-cache-memory-bytes {memory} holds no block of {config.block_size} tokens: "
            f"at least {per_block} bytes are needed."
        )
    if config.max_model_len in (None, -1):
        if capacity < spec.max_position and config.max_model_len is None:
            log.warning(
                "The model's context of %d tokens is cut to %d, what the KV cache holds; "
                "--kv-cache-memory-bytes %d makes room for all of it.",
                spec.max_position,
                capacity,
                -(-spec.max_position // config.block_size) * per_block,
            )
        return num_blocks, min(spec.max_position, capacity)
    if config.max_model_len > spec.max_position:
        raise ConfigError(
            f"--max-model-len {config.max_model_len} is more than the {spec.max_position} tokens "
            "the model was made for."
        )
    if config.max_model_len > capacity:
        raise ConfigError(
            f"--max-model-len {config.max_model_len} does not fit: the KV cache holds {capacity} tokens. "
            f"Lower it, or give --kv-cache-memory-bytes at least "
            f"{-(-config.max_model_len // config.block_size) * per_block}."
        )
    return num_blocks, config.max_model_len


def _default_memory(token_bytes: int, device: torch.device) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * DEFAULT_CUDA_SHARE)
    return max(DEFAULT_CPU_TOKENS * token_bytes, int(usable_memory() * DEFAULT_CPU_SHARE))


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    # numpy's zeros come untouched from the system: a block costs memory only once it is written.
    return torch.from_numpy(np.zeros(int(np.prod(shape)) * dtype.itemsize, dtype=np.uint8)).view(dtype).view(shape)
