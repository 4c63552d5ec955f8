"""The periodic line that says how busy the engine is."""

from __future__ import annotations

import asyncio
import logging
import time

from headrace.core.request import StepStats

log = logging.getLogger(__name__)


class ThroughputLog:
    """Adds up steps and logs a line every `interval` seconds in which the engine had work."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._reset()

    def on_step(self, stats: StepStats) -> None:
        """A `StatsListener`."""
        self._latest = stats
        self._had_work |= stats.running + stats.waiting + stats.prompt_tokens + stats.generation_tokens > 0
        self._prompt_tokens += stats.prompt_tokens
        self._generation_tokens += stats.generation_tokens
        self._prefix_queries += stats.prefix_queries
        self._prefix_hits += stats.prefix_hits
        self._preemptions += stats.preemptions

    @property
    def had_work(self) -> bool:
        """Whether a step since the last line ran something, or left something waiting."""
        return self._had_work

    async def run(self) -> None:
        """Log until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            if self.had_work:
                log.info("%s", self.take())
            else:
                self._reset()

    def take(self) -> str:
        """The line for the time since the last one."""
        seconds = max(time.monotonic() - self._since, 1e-9)
        hits = f"{self._prefix_hits / self._prefix_queries:.0%}" if self._prefix_queries else "-"
        line = (
            f"prompt {self._prompt_tokens / seconds:.1f} tokens/s, "
            f"generation {self._generation_tokens / seconds:.1f} tokens/s, "
            f"running {self._latest.running}, waiting {self._latest.waiting}, "
            f"KV cache {self._latest.kv_usage:.1%}, prefix hits {hits}"
        )
        if self._preemptions:
            line += f", preempted {self._preemptions}"
        self._reset()
        return line

    def _reset(self) -> None:
        self._since = time.monotonic()
        self._latest = StepStats()
        self._had_work = False
        self._prompt_tokens = 0
        self._generation_tokens = 0
        self._prefix_queries = 0
        self._prefix_hits = 0
        self._preemptions = 0
