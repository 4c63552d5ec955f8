"""The knobs of the engine: what it computes with, how much memory it keeps, how it plans a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from headrace.config.rules import Size, Spellings, at_least, check_fields, power_of_two


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What the engine computes with, keeps in memory and runs in a step."""

    dtype: Annotated[
        Literal["auto", "float32", "float16", "bfloat16"], Spellings({"half": "float16", "float": "float32"})
    ] = "auto"
    """What the model computes in; auto: the file's own precision. 'half' is float16, 'float' is float32."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto: CUDA if there is such a device."""
    max_model_len: Annotated[
        int | None, Size(), Spellings({"auto": -1}), at_least(1, or_minus_one="the longest that fits")
    ] = None
    """Longest sequence in tokens (1k, 1K). Default: what the model says; auto or -1: the longest that fits memory."""
    max_num_seqs: Annotated[int, Size(), at_least(1)] = 256
    """Most sequences that run in one step."""
    max_num_batched_tokens: Annotated[int, Size(), at_least(1)] = 2048
    """Most tokens that one step computes, prompts and outputs together."""
    block_size: Annotated[int, power_of_two(1, 256)] = 16
    """Tokens in one block of the KV cache; a power of two."""
    kv_cache_memory_bytes: Annotated[int | None, Size(), at_least(1)] = None
    """Memory for keys and values (512M, 2G). Default on a CPU: 8k tokens or 10 % of memory, whichever is larger."""
    enable_prefix_caching: bool = True
    """Reuse the keys and values of prompts that begin alike."""
    scheduling_policy: Literal["fcfs", "priority"] = "fcfs"
    """Who runs first: who came first, or the lowest priority value."""
    threads: Annotated[int | None, at_least(1)] = None
    """CPU threads of the kernels. Default: the physical cores this process may use."""

    def __post_init__(self) -> None:
        check_fields(self)
