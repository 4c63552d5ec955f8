"""What of this machine this process may use."""

from __future__ import annotations

import math
import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def usable_cores() -> int:
    """Physical cores among the processors this process may run on; no more than its control group's share of time."""
    # Where the system does not bind processes to processors (macOS), all are there.
    cpus = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
    cores = set()
    for cpu in cpus:
        try:
            cores.add(Path(f"/sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list").read_text().strip())
        except OSError:
            cores.add(str(cpu))
    # More threads than the share use it up early and are then all made to wait for the next period.
    return max(1, math.ceil(min(len(cores), _cpu_share(_CGROUP))))


def usable_memory() -> int:
    """Bytes of memory: the machine's, or the control group's if that is less."""
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in (_CGROUP / "memory.max", _CGROUP / "memory" / "memory.limit_in_bytes"):
        try:
            return min(total, int(limit.read_text()))
        except (OSError, ValueError):  # not there, or "max"
            continue
    return total


def _cpu_share(cgroup: Path) -> float:
    """Processors' worth of time that the control group may use; infinite without a limit."""
    try:
        quota, period = (cgroup / "cpu.max").read_text().split()
        return int(quota) / int(period)
    except (OSError, ValueError):  # not there, or "max"
        return math.inf
