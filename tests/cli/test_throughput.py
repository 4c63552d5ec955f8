"""The periodic line about the engine."""

from __future__ import annotations

import re

from headrace.cli.throughput import ThroughputLog
from headrace.core.request import StepStats


def test_a_line_adds_up_the_steps_since_the_last_one():
    throughput = ThroughputLog(10.0)
    throughput.on_step(StepStats(running=2, waiting=1, prompt_tokens=30, prefix_queries=40, prefix_hits=10))
    throughput.on_step(StepStats(running=3, kv_usage=0.25, generation_tokens=15, preemptions=1))
    assert throughput.had_work
    line = throughput.take()
    rates = re.match(r"prompt (\d+\.\d) tokens/s, generation (\d+\.\d) tokens/s, (.*)", line)
    assert rates is not None
    assert abs(float(rates[1]) - 2 * float(rates[2])) < 0.2
    assert rates[3] == "running 3, waiting 0, KV cache 25.0%, prefix hits 25%, preempted 1"
    assert not throughput.had_work
    assert throughput.take().startswith("prompt 0.0 tokens/s, generation 0.0 tokens/s, running 0, waiting 0")


def test_an_idle_step_is_no_work():
    throughput = ThroughputLog(10.0)
    throughput.on_step(StepStats())
    assert not throughput.had_work
