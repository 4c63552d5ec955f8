"""Loads the heavy libraries and says what they are: `python -m headrace.doctor.probe` prints a `Probed` as JSON.

In a process of its own because loading them can do anything, up to ending the process.
"""

from __future__ import annotations

import signal
import subprocess
import sys

import msgspec
from msgspec import Struct

from headrace.doctor.report import Kernels, Torch

_SECONDS = 120.0
_SHOWN = 300


class Probed(Struct, frozen=True):
    torch: Torch
    kernels: Kernels


def probe() -> Probed:
    """Never raises: what went wrong is the finding."""
    try:
        done = subprocess.run(
            [sys.executable, "-m", "headrace.doctor.probe"], capture_output=True, timeout=_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        return _failed(f"it does not load within {_SECONDS:.0f} s")
    try:
        return msgspec.json.decode(done.stdout.splitlines()[-1], type=Probed)
    except (IndexError, msgspec.DecodeError):
        return _failed(_ending(done.returncode, done.stderr))


def _failed(problem: str) -> Probed:
    return Probed(Torch(problem=problem), Kernels(problem=problem))


def _ending(code: int, errors: bytes) -> str:
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    last = errors.decode(errors="replace").strip().rpartition("\n")[2][:_SHOWN]
    return f"a process that loads it {how}{': ' + last if last else ''}"


def _torch() -> Torch:
    try:
        import torch
    except Exception as error:  # an installation can be broken in any way
        return Torch(problem=f"{type(error).__name__}: {error}")
    return Torch(version=str(torch.__version__), cuda=torch.version.cuda, finds_gpu=torch.cuda.is_available())


def _kernels() -> Kernels:
    try:
        from headrace.kernels.cpu import NoNativeLibrary, load_cpu_kernels
    except Exception as error:  # it imports torch
        return Kernels(problem=f"{type(error).__name__}: {error}")
    try:
        return Kernels(name=load_cpu_kernels(threads=1).name)
    except NoNativeLibrary as error:
        return Kernels(problem=str(error))


if __name__ == "__main__":
    print(msgspec.json.encode(Probed(_torch(), _kernels())).decode())
