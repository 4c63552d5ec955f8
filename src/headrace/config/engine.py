"""The knobs of the engine: what it computes with, how much memory it keeps, how it plans a step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from headrace.config.rules import Short, Size, Spellings, at_least, check_fields, power_of_two

_FLOATS = {"half": "float16", "float": "float32"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What the engine computes with, keeps in memory and runs in a step."""

    dtype: Annotated[Literal["auto", "float32", "float16", "bfloat16"], Spellings(_FLOATS)] = "auto"
    """Precision of the weights; auto: the file's own, if the kernels know it. 'half' is float16, 'float' is float32."""
    quantization: Annotated[Literal["int8", "int4"] | None, Short("-q")] = None
    """Round the weights of a float checkpoint to 8 or 4 bits, in groups of 32 (native kernels only)."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where the model runs; auto: CUDA if there is such a device."""
    kernels: Literal["auto", "native", "reference"] = "auto"
    """What computes on a CPU: our own library, or plain torch; auto: the library where it is installed."""
    max_model_len: Annotated[
        int | None, Size(), Spellings({"auto": -1}), at_least(1, or_minus_one="the longest that fits")
    ] = None
    """Longest sequence in tokens (1k, 1K). Default: what the model says; auto or -1: the longest that fits memory."""
    max_num_seqs: Annotated[int, Size(), at_least(1)] = 256
    """Most sequences that run in one step."""
    max_num_batched_tokens: Annotated[int, Size(), at_least(1)] = 2048
    """Most tokens that one step computes, prompts and outputs together."""
    block_size: Annotated[int, power_of_two(1, 256)] = 16
    """Tokens in one block of the KV cache; a power of two, with native kernels at least 16."""
    kv_cache_dtype: Annotated[Literal["auto", "float32", "float16", "bfloat16", "int8"], Spellings(_FLOATS)] = "auto"
    """What keys and values are kept in; auto: float32 where the weights are, else half precision."""
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
