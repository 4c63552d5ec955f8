"""Flags that users of this API family know and that Headrace does not act on: refused by name, never ignored.

A value that asks for nothing but what happens anyway is accepted (`--tensor-parallel-size 1`), so that command lines
can be brought along.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headrace.core.errors import ConfigError


@dataclass(frozen=True, slots=True, kw_only=True)
class Unimplemented:
    """A flag known by name only. `harmless` values change nothing. A switch takes no value: it is true or false."""

    harmless: tuple[str, ...] = ()
    short: str | None = None
    switch: bool = False

    def check(self, value: Any, label: str) -> None:
        """Raises `ConfigError` unless `value`, a text or what YAML made of it, changes nothing."""
        if str(value).casefold() in self.harmless:
            return
        if self.harmless and not self.switch:
            raise ConfigError(f"{label}: {value} is not implemented yet, only {' or '.join(self.harmless)} is.")
        raise ConfigError(f"{label} is not implemented yet.")


def _only(*harmless: str, short: str | None = None) -> Unimplemented:
    return Unimplemented(harmless=harmless, short=short)


_VALUE = Unimplemented()
_OFF = Unimplemented(harmless=("false",), switch=True)
_ON = Unimplemented(harmless=("true",), switch=True)

UNIMPLEMENTED: Mapping[str, Unimplemented] = {
    "allowed_local_media_path": _only(""),
    "allowed_media_domains": _VALUE,
    "api_server_count": _only("1"),
    "data_parallel_size": _only("1", short="-dp"),
    "download_dir": _VALUE,
    "enable_chunked_prefill": _ON,
    "enable_log_outputs": _OFF,
    "enable_lora": _OFF,
    "enable_mm_embeds": _OFF,
    "enable_per_request_metrics": _OFF,
    "enable_prompt_embeds": _OFF,
    "enable_scale_out": Unimplemented(harmless=("true", "false"), switch=True),  # what it opens is always open
    "enable_ssl_refresh": _OFF,
    "enforce_eager": _OFF,
    "fingerprint_mode": _VALUE,
    "fingerprint_value": _VALUE,
    "gpu_memory_utilization": _VALUE,
    "h11_max_header_count": _VALUE,
    "h11_max_incomplete_event_size": _VALUE,
    "interleave_mm_strings": _OFF,
    "limit_mm_per_prompt": _only("{}"),
    "load_format": _only("auto"),
    "log_error_stack": _OFF,
    "logprobs_mode": _only("raw_logprobs"),
    "lora_modules": _VALUE,
    "max_cpu_loras": _VALUE,
    "max_lora_rank": _VALUE,
    "max_loras": _VALUE,
    "media_io_kwargs": _only("{}"),
    "middleware": _VALUE,
    "mm_processor_cache_gb": _VALUE,
    "mm_processor_kwargs": _VALUE,
    "otlp_traces_endpoint": _VALUE,
    "pipeline_parallel_size": _only("1", short="-pp"),
    "show_hidden_metrics_for_version": _VALUE,
    "sse_keep_alive_interval": _only("0"),
    "stream_interval": _only("1"),
    "tensor_parallel_size": _only("1", short="-tp"),
    "tokenizer_mode": _only("auto"),
    "trust_remote_code": _OFF,
    "trust_request_mm_kwargs": _OFF,
}
