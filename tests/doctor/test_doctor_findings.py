"""What the doctor makes of machines and installations that are not this one."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from headrace.doctor import probe as probing
from headrace.doctor.advice import advice_of, warnings_of
from headrace.doctor.fits import fits_of, rooms_of
from headrace.doctor.machine import examine_cpu, read_bandwidth, read_gpus
from headrace.doctor.report import Gpu, Kernels, Memory, ModelFit, Part, Torch
from headrace.hub import ModelListing

H200 = Gpu(name="NVIDIA H200", memory=150 << 30, driver="580.1")
CPU_BUILD = Torch(version="2.13.0+cpu")
CUDA_BUILD = Torch(version="2.13.0+cu130", cuda="13.0")
NATIVE = Kernels(name="native avx2")


def warnings(torch: Torch, kernels: Kernels = NATIVE, gpus: tuple[Gpu, ...] = ()) -> str:
    return "\n".join(warnings_of(torch, kernels, gpus))


def test_nothing_is_wrong_with_what_fits_together():
    assert warnings(CPU_BUILD) == ""
    assert warnings(Torch(version="2.13.0+cu130", cuda="13.0", finds_gpu=True), gpus=(H200,)) == ""


def test_a_cuda_build_without_a_gpu():
    said = warnings(CUDA_BUILD)
    assert "torch 2.13.0+cu130 is a build for CUDA 13.0, of several GB, and there is no GPU" in said
    assert "CPU build" in said


def test_a_gpu_that_torch_does_not_find():
    assert "CUDA_VISIBLE_DEVICES" in warnings(CUDA_BUILD, gpus=(H200,))
    assert "a build without CUDA" in warnings(CPU_BUILD, gpus=(H200,))


def test_kernels_that_are_missing():
    missing = Kernels(problem="this installation was built without the native library")
    assert "built without the native library" in warnings(CPU_BUILD, missing)
    assert warnings(Torch(version="2", cuda="13.0", finds_gpu=True), missing, (H200,)) == ""


def test_torch_that_does_not_load():
    assert "No model can be served" in warnings(Torch(problem="ImportError: libgomp.so.1"))


def test_gpus_are_read_of_what_nvidia_smi_says():
    table = "NVIDIA H200, 143771, 580.105.08\nNVIDIA H200, 143771, 580.105.08\n"
    assert read_gpus(table) == (Gpu(name="NVIDIA H200", memory=143771 << 20, driver="580.105.08"),) * 2
    assert read_gpus("No devices were found\n") == ()
    assert read_gpus("NVIDIA GB10, [N/A], 580.1\n") == ()
    assert read_gpus("") == ()


CPUINFO = """\
processor\t: 0
model name\t: Some CPU @ 2.00GHz
flags\t\t: fpu sse2 avx2 fma f16c avx512f avx512_vnni amx_int8 bmi1

processor\t: 1
model name\t: Another
"""


def test_the_processor_is_read_of_cpuinfo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "cpuinfo").write_text(CPUINFO)
    monkeypatch.setattr("headrace.doctor.machine._CPUINFO", tmp_path / "cpuinfo")
    cpu = examine_cpu()
    assert cpu.model == "Some CPU @ 2.00GHz"
    assert cpu.features == ("avx2", "fma", "f16c", "avx512f", "avx512_vnni", "amx_int8")
    monkeypatch.setattr("headrace.doctor.machine._CPUINFO", tmp_path / "nothing")
    assert examine_cpu().features == ()


def test_bandwidth_is_of_all_threads_together():
    assert 1e8 < read_bandwidth(threads=2, size=8 << 20) < 1e13


def test_what_fits():
    def listing(name: str, size: float) -> ModelListing:
        return ModelListing(
            name=name, task="generate", description="", licence="", size=int(size), present=False, path=Path()
        )

    memory = Memory(usable=int(4e9), bandwidth=20e9)
    small, large = fits_of([listing("small", 1e9), listing("large", 3e9)], memory)
    assert (small.fits, small.most_tokens_per_second) == (True, 20.0)
    assert not large.fits
    rooms = rooms_of(memory, [H200])
    assert [(room.where, room.bits) for room in rooms] == [
        ("memory", 4),
        ("memory", 8),
        ("memory", 16),
        ("GPU memory", 16),
    ]
    assert rooms[0].parameters > rooms[1].parameters > rooms[2].parameters > 1e9
    assert all(room.parameters == 0 for room in rooms_of(Memory(usable=1 << 29, bandwidth=1e9), []))


def test_what_to_do_next():
    def model(name: str, *, present: bool, fits: bool = True) -> ModelFit:
        return ModelFit(
            name=name, task="generate", size=98_000_000, present=present, fits=fits, most_tokens_per_second=1.0
        )

    psycopg = Part(name="psycopg", purpose="jobs in PostgreSQL", install="pip install 'headrace[postgres]'")
    here = [model("smollm2", present=True), model("big", present=False, fits=False), model("other", present=False)]
    said = list(advice_of(here, [psycopg]))
    assert said == [
        "headrace serve serves smollm2, which is here.",
        "headrace pull other fetches another one that fits (98 MB).",
        "For jobs in PostgreSQL: pip install 'headrace[postgres]'",
    ]
    assert "headrace pull smollm2 fetches the default model" in next(advice_of([model("smollm2", present=False)], []))


@pytest.mark.parametrize(
    ("code", "output", "problem"),
    [(-4, b"", "was ended by SIGILL"), (1, b"", "ended with exit code 1: ImportError: no"), (0, b"{}", "exit code 0")],
)
def test_a_library_that_ends_the_process_is_a_finding(
    monkeypatch: pytest.MonkeyPatch, code: int, output: bytes, problem: str
):
    def run(*arguments: object, **options: object) -> subprocess.CompletedProcess[bytes]:
        errors = b"Traceback\nImportError: no\n" if code == 1 else b""
        return subprocess.CompletedProcess([], code, output, errors)

    monkeypatch.setattr(subprocess, "run", run)
    found = probing.probe()
    assert problem in (found.torch.problem or "")
    assert problem in (found.kernels.problem or "")
