"""The knobs of the engine: what it computes with, how much memory it keeps, how it plans a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """Everything the engine needs to know beside the model's files."""

    dtype: Literal["auto", "float32", "float16", "bfloat16"] = "auto"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    max_model_len: int | None = None
    """Longest sequence in tokens. None: what the model's configuration says; -1: the longest that fits in memory."""
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2048
    block_size: int = 16
    kv_cache_memory_bytes: int | None = None
    """None, on a CPU: room for 8k tokens or 10 % of the machine's memory, whichever is larger."""
    enable_prefix_caching: bool = True
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    threads: int | None = None
    """CPU threads of the kernels. None: the physical cores this process may use."""
