"""What the engine does: one call after every step."""

from __future__ import annotations

from headrace.core.request import EngineInfo, StepStats
from headrace.metrics import buckets
from headrace.metrics.family import EngineFamily


class StepMetrics:
    """Gauges of the engine's state and counters of its work."""

    def __init__(self, family: EngineFamily) -> None:
        self._labels = family.labels
        self._latest = StepStats()
        self._shape: dict[str, str] | None = None
        waiting_for_room = family.gauges(
            "num_requests_waiting_by_reason", "Waiting sequences by what they wait for.", "reason"
        ).labels(**self._labels, reason="capacity")
        for gauge, read in (
            (family.gauge("num_requests_running", "Sequences in the running batch."), lambda: self._latest.running),
            (
                family.gauge("num_requests_waiting", "Sequences waiting for a place in the batch."),
                lambda: self._latest.waiting,
            ),
            (waiting_for_room, lambda: self._latest.waiting),
            (
                family.gauge("kv_cache_usage_perc", "Share of the KV cache in use, 0 to 1."),
                lambda: self._latest.kv_usage,
            ),
            (
                family.gauge("gpu_cache_usage_perc", "Older name of vllm:kv_cache_usage_perc."),
                lambda: self._latest.kv_usage,
            ),
        ):
            gauge.set_function(read)
        self._cache_config = family.gauges(
            "cache_config_info", "Shape of the KV cache.", "block_size", "num_gpu_blocks"
        )
        self._prompt_tokens = family.counter("prompt_tokens", "Prompt tokens processed, computed or found cached.")
        by_source = family.counters("prompt_tokens_by_source", "Prompt tokens by where their keys came from.", "source")
        self._computed_tokens = by_source.labels(**self._labels, source="local_compute")
        self._reused_tokens = by_source.labels(**self._labels, source="local_cache_hit")
        self._cached_tokens = family.counter("prompt_tokens_cached", "Prompt tokens found in the prefix cache.")
        self._generation_tokens = family.counter("generation_tokens", "Tokens generated.")
        self._prefix_queries = family.counter("prefix_cache_queries", "Tokens looked up in the prefix cache.")
        self._prefix_hits = family.counter("prefix_cache_hits", "Tokens found in the prefix cache.")
        self._preemptions = family.counter("num_preemptions", "Sequences that gave up their blocks.")
        self._mask_seconds = family.histogram(
            "grammar_mask_seconds", "Time per token to find what its grammar allows.", buckets.GRAMMAR_MASK
        )
        self._step_tokens = family.histogram("iteration_tokens_total", "Tokens of a step.", buckets.STEP_TOKENS)

    def engine_loaded(self, info: EngineInfo) -> None:
        """Publish the shape of the KV cache."""
        if self._shape is not None:  # that of an engine that has died
            self._cache_config.remove_by_labels({**self._labels, **self._shape})
        self._shape = {"block_size": str(info.block_size), "num_gpu_blocks": str(info.num_blocks)}
        self._cache_config.labels(**self._labels, **self._shape).set(1)

    def on_step(self, stats: StepStats) -> None:
        self._latest = stats
        self._generation_tokens.inc(stats.generation_tokens)
        self._step_tokens.observe(stats.prompt_tokens + stats.generation_tokens)
        # Most steps only decode: what stays as it is need not be touched.
        if stats.prompt_tokens or stats.prefix_queries:
            self._prompt_tokens.inc(stats.prompt_tokens + stats.prefix_hits)
            self._computed_tokens.inc(stats.prompt_tokens)
            self._reused_tokens.inc(stats.prefix_hits)
            self._cached_tokens.inc(stats.prefix_hits)
            self._prefix_queries.inc(stats.prefix_queries)
            self._prefix_hits.inc(stats.prefix_hits)
        if stats.masked_tokens:
            self._mask_seconds.observe(stats.mask_seconds / stats.masked_tokens)
        if stats.preemptions:
            self._preemptions.inc(stats.preemptions)
