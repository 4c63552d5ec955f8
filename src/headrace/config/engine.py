"""The knobs of the engine: what it computes with, how much memory it keeps, how it plans a step."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from headrace.config.pooler import read_pooler_config
from headrace.config.rules import Alias, Short, Size, Spellings, at_least, check_fields, power_of_two
from headrace.core.errors import ConfigError

_FLOATS = {"half": "float16", "float": "float32"}


_TASKS = {
    "generate": ("generate", "none"),
    "embed": ("pooling", "embed"),
    "classify": ("pooling", "classify"),
    "score": ("pooling", "classify"),
}
"""The runner and the conversion that `--task` stands for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """What the engine computes, what with, keeps in memory and runs in a step."""

    runner: Literal["auto", "generate", "pooling"] = "auto"
    """What the model is for: new text, or vectors and scores; auto: what its files say."""
    convert: Literal["auto", "none", "embed", "classify"] = "auto"
    """What a model that pools makes: vectors or scores; auto: what its files say."""
    task: Annotated[Literal["auto", "generate", "embed", "classify", "score"], Spellings({"embedding": "embed"})] = (
        "auto"
    )
    """Runner and conversion in one word, as older versions of vLLM had it; 'score' is as 'classify'."""
    pooler_config: Annotated[dict[str, Any], Alias("override_pooler_config")] = field(default_factory=dict)
    """JSON object: pooling_type (CLS, LAST, MEAN), use_activation, dimensions, task, logit_mean, logit_sigma."""
    hf_overrides: dict[str, Any] = field(default_factory=dict)
    """JSON object laid over the model's config.json."""
    dtype: Annotated[Literal["auto", "float32", "float16", "bfloat16"], Spellings(_FLOATS)] = "auto"
    """Precision of the weights; auto: the file's own, but of encoders on native kernels int16. 'half' is float16."""
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
        read_pooler_config(self.pooler_config)
        runner, convert = _TASKS.get(self.task, ("auto", "auto"))
        for flag, value, same in (("--runner", self.runner, runner), ("--convert", self.convert, convert)):
            if "auto" not in (value, same) and value != same:
                raise ConfigError(
                    f"--task {self.task} and {flag} {value} contradict each other; leave one of them out."
                )

    @property
    def wanted_role(self) -> tuple[str, str]:
        """Runner and conversion, whichever flags they were asked for with; either can be "auto"."""
        runner, convert = _TASKS.get(self.task, (self.runner, self.convert))
        return runner, convert
