"""The memory behind the block ids: how much of it there is, and the tensors it is."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from math import prod

import numpy as np
import torch

from headrace.config.engine import EngineConfig
from headrace.core.errors import ConfigError
from headrace.core.machine import usable_memory
from headrace.models.decoder import KvLayout
from headrace.models.spec import DecoderSpec

log = logging.getLogger(__name__)

_ALIGNMENT = 64
"""Bytes: vectors that lie across two cache lines are read at half the speed."""

DEFAULT_CPU_TOKENS = 8192
DEFAULT_CPU_SHARE = 0.10
DEFAULT_CUDA_SHARE = 0.85
"""Of what is free after loading; the rest is for activations."""


class KvCache:
    """Keys and values of every layer, in `num_blocks` blocks beside the null block 0.

    `memory` is uint8 [blocks, layers, 2 (keys, values), layout.block_bytes]; what the bytes mean, the decoder knows.
    All layers of a block lie together, so that memory fills up from its beginning: the system gives it out in pages of
    2 MB.
    """

    def __init__(self, layout: KvLayout, *, num_layers: int, num_blocks: int, device: torch.device) -> None:
        shape = (num_blocks + 1, num_layers, 2, layout.block_bytes)
        try:
            self.memory = _zeros(shape, device)
        except (MemoryError, torch.OutOfMemoryError):
            raise ConfigError(
                f"There is no room for a KV cache of {num_blocks * layout.block_size} tokens, which takes "
                f"{prod(shape)} bytes: lower --kv-cache-memory-bytes."
            ) from None
        self.layout = layout
        self._floats = self.memory[..., layout.floats_from :].view(layout.float_dtype)

    def copy_blocks(self, copies: Sequence[tuple[int, int]]) -> None:
        """Copy whole blocks, all layers at once. No source is also a target.

        Takes no memory, so that it cannot fail where a step may: the targets can belong to sequences that are not in
        the step and live on.
        """
        for source, target in copies:
            self.memory[target].copy_(self.memory[source])

    def scrub(self, block_ids: Iterable[int]) -> None:
        """Make whatever is not finite in these blocks 0, for who gets them next: attention may weigh the slots of a
        block that are not its own by zero, and zero times NaN is NaN. Finite values, which others may share, stay.
        """
        for block in block_ids:
            self._floats[block].nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)


def block_bytes(spec: DecoderSpec, layout: KvLayout) -> int:
    """Bytes that one block takes over all layers, keys and values."""
    return 2 * spec.num_layers * layout.block_bytes


def size_cache(
    spec: DecoderSpec, config: EngineConfig, layout: KvLayout, device: torch.device, memory_share: float = 1.0
) -> tuple[int, int]:
    """How many blocks to keep and how long a sequence may get: `(num_blocks, max_model_len)`.

    `memory_share`: the part of the default amount of memory that may be taken, where the config names none.

    Raises `ConfigError` if a sequence of the length asked for does not fit.
    """
    per_block = block_bytes(spec, layout)
    memory = config.kv_cache_memory_bytes
    if memory is None:
        least = -(-DEFAULT_CPU_TOKENS // config.block_size) * per_block
        memory = _default_memory(least, device, memory_share)
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


def _default_memory(least: int, device: torch.device, share: float) -> int:
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free * DEFAULT_CUDA_SHARE * share)
    return max(least, int(usable_memory() * DEFAULT_CPU_SHARE * share))


def _zeros(shape: tuple[int, ...], device: torch.device) -> torch.Tensor:
    if device.type != "cpu":
        return torch.zeros(shape, dtype=torch.uint8, device=device)
    # numpy's zeros come untouched from the system: a block costs memory only once it is written.
    size = prod(shape)
    memory = np.zeros(size + _ALIGNMENT, dtype=np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return torch.from_numpy(memory[start : start + size]).view(shape)
