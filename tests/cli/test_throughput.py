"""The periodic lines about the engines."""

from __future__ import annotations

import re

from headrace.cli.throughput import Throughput, ThroughputLog
from headrace.core.request import StepStats


def test_a_line_adds_up_the_steps_since_the_last_one():
    throughput = Throughput()
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
    throughput = Throughput()
    throughput.on_step(StepStats())
    assert not throughput.had_work


def test_one_model_needs_no_name():
    lines = ThroughputLog(10.0)
    lines.model("smol").on_step(StepStats(running=1))
    (line,) = lines.take()
    assert line.startswith("prompt ")
    assert lines.take() == []


def test_a_line_for_each_model_that_had_work():
    lines = ThroughputLog(10.0)
    for name, running in (("smol", 1), ("idle", 0), ("other", 2)):
        lines.model(name).on_step(StepStats(running=running))
    assert [line.split(":")[0] for line in lines.take()] == ["smol", "other"]
