"""The periodic lines that say how busy the engines are."""

from __future__ import annotations

import asyncio
import logging
import time

from headrace.core.request import StepStats

log = logging.getLogger(__name__)


class Throughput:
    """Adds up the steps of one engine."""

    def __init__(self) -> None:
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


class ThroughputLog:
    """Logs a line for each engine that had work, every `interval` seconds."""

    def __init__(self, interval: float) -> None:
        self._interval = interval
        self._engines: dict[str, Throughput] = {}

    def model(self, name: str) -> Throughput:
        """For the steps of this model's engine. Lines say which model they are of as soon as there are several."""
        return self._engines.setdefault(name, Throughput())

    async def run(self) -> None:
        """Log until cancelled."""
        while True:
            await asyncio.sleep(self._interval)
            for line in self.take():
                log.info("%s", line)

    def take(self) -> list[str]:
        """The lines for the time since the last ones."""
        lines = []
        for name, throughput in self._engines.items():
            had_work = throughput.had_work
            line = throughput.take()
            if had_work:
                lines.append(line if len(self._engines) == 1 else f"{name}: {line}")
        return lines
