"""What this machine is: processor, memory and its speed, GPUs."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headrace.core.machine import usable_cores, usable_memory
from headrace.doctor.report import Cpu, Gpu, Memory

_CPUINFO = Path("/proc/cpuinfo")

_KERNEL_FEATURES = re.compile(
    r"avx2|fma|f16c|avx512(f|bw|vl|_vnni|_bf16)|avx_vnni|amx_\w+|asimd(dp|hp)?|i8mm|bf16|sve2?"
)

_MOST_READ = 512 << 20
"""Bytes that are read to measure: far more than caches hold."""
_PASSES = 5

_COMMAND_SECONDS = 20.0


def examine_cpu() -> Cpu:
    facts = _cpuinfo()
    words = (facts.get("flags") or facts.get("Features") or "").split()
    return Cpu(
        model=facts.get("model name") or _mac_name() or platform.processor() or "unknown",
        architecture=platform.machine(),
        cores=usable_cores(),
        features=tuple(word for word in words if _KERNEL_FEATURES.fullmatch(word)),
    )


def examine_memory() -> Memory:
    usable = usable_memory()
    return Memory(usable=usable, bandwidth=read_bandwidth(usable_cores(), min(_MOST_READ, usable // 8)))


def read_bandwidth(threads: int, size: int) -> float:
    """Bytes a second at which `threads` threads read `size` bytes together; the best of some passes."""
    arrays = [np.ones(size // threads, dtype=np.uint8) for _ in range(threads)]
    best = 0.0
    with ThreadPoolExecutor(threads) as pool:
        for _ in range(_PASSES):
            started = time.perf_counter()
            list(pool.map(_read_through, arrays))
            best = max(best, size / (time.perf_counter() - started))
    return best


def examine_gpus() -> tuple[Gpu, ...]:
    """Those that NVIDIA's driver knows of; none without its `nvidia-smi`."""
    output = _output_of("nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits")
    return read_gpus(output)


def read_gpus(table: str) -> tuple[Gpu, ...]:
    """Of nvidia-smi's lines `NAME, MEBIBYTES, DRIVER`; what else it may say is left out."""
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    return tuple(
        Gpu(name=row[0], memory=int(row[1]) << 20, driver=row[2])
        for row in rows
        if len(row) == 3 and row[1].isdecimal()
    )


def _read_through(array: NDArray[np.uint8]) -> np.uint8:
    """The fastest reading that numpy does; it lets other threads run meanwhile."""
    return array.max()


def _cpuinfo() -> Mapping[str, str]:
    """Of the first processor; empty where the system does not say."""
    try:
        first, _, _ = _CPUINFO.read_text().partition("\n\n")
    except OSError:
        return {}
    pairs = (line.partition(":") for line in first.splitlines())
    return {name.strip(): value.strip() for name, _, value in pairs}


def _mac_name() -> str:
    return _output_of("sysctl", "-n", "machdep.cpu.brand_string").strip() if platform.system() == "Darwin" else ""


def _output_of(command: str, *arguments: str) -> str:
    """What it prints; nothing if it is not there, or fails."""
    if shutil.which(command) is None:
        return ""
    try:
        done = subprocess.run(
            [command, *arguments], capture_output=True, text=True, check=True, timeout=_COMMAND_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout
