"""What of the machine is used."""

from __future__ import annotations

import math
import os
from pathlib import Path

import pytest

from headrace.core import machine


def test_cores_are_those_this_process_may_run_on() -> None:
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)


def test_without_affinity_every_processor_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert 1 <= machine.usable_cores() <= (os.cpu_count() or 1)


@pytest.mark.parametrize(("text", "share"), [("150000 100000", 1.5), ("max 100000", math.inf), ("", math.inf)])
def test_a_control_group_can_limit_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, share: float
) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert machine._cpu_share(tmp_path) == share
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.usable_cores() <= share + 1


def test_memory_is_the_control_groups_if_that_is_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    everything = machine.usable_memory()
    monkeypatch.setattr(machine, "_CGROUP", tmp_path)
    assert machine.usable_memory() >= everything
    (tmp_path / "memory.max").write_text("max")
    assert machine.usable_memory() >= everything
    (tmp_path / "memory.max").write_text("123456")
    assert machine.usable_memory() == 123456
