"""The native library: that it was built, for which machines, and what is packaged."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from collections import defaultdict
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
LIBRARY = "headrace.kernels.cpu._native"
CPUINFO = Path("/proc/cpuinfo")

AVX2 = {"avx2", "fma", "f16c"}
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
LEVELS = {"portable": set(), "avx2": AVX2, "avx512": AVX512, "avx512vnni": AVX512 | {"avx512_vnni"}}
"""Level -> what Linux must say of an x86-64 processor that can run it."""


def missing(what: str) -> None:
    """Without a compiler the package works all the same, so a test is skipped; where CI is true, it fails."""
    if os.environ.get("CI", "").lower() not in ("", "0", "false"):
        pytest.fail(f"{what}, and CI is set")
    pytest.skip(what)


@pytest.fixture(scope="module")
def library() -> ModuleType:
    if importlib.util.find_spec(LIBRARY) is None:
        missing("the native kernels were not built: see .venv/install.log")
    return importlib.import_module(LIBRARY)


def test_levels_are_those_of_this_machine(library: ModuleType) -> None:
    flags: set[str] = set()
    if CPUINFO.exists():
        flags = {flag for line in CPUINFO.read_text().splitlines() if line.startswith("flags") for flag in line.split()}
    if "lm" not in flags:  # long mode, x86-64
        assert library.isa_levels()[0] == "portable"
        return
    assert library.isa_levels() == [level for level, needed in LEVELS.items() if needed <= flags]


def test_installed_for_this_platform(library: ModuleType) -> None:
    distribution = importlib.metadata.distribution("headrace")
    wheel = distribution.read_text("WHEEL")
    assert wheel is not None
    assert "Root-Is-Purelib: false" in wheel
    installed = [distribution.locate_file(file) for file in distribution.files or [] if file.match("_native.*")]
    assert [Path(str(file)).resolve() for file in installed] == [Path(str(library.__file__)).resolve()]


def test_no_function_is_compiled_for_two_levels(library: ModuleType) -> None:
    """Of an inline function that several objects define the linker keeps one, maybe the one with AVX-512 in it."""
    builds = list(ROOT.glob("build/*/CMakeFiles/headrace_kernels.dir/src"))
    if not builds or shutil.which("nm") is None:
        missing("no objects of a build, or no nm to read them")
    for build in builds:
        homes: dict[str, set[str]] = defaultdict(set)
        for object_file in build.rglob("*.o"):
            level = object_file.name.split(".")[0] if object_file.parent.name == "isa" else "portable"
            listing = subprocess.run(["nm", "-C", object_file], capture_output=True, text=True, check=True).stdout
            for symbol in listing.splitlines():
                _, kind, name = symbol[16:].split(" ", 2)
                if kind == "W":
                    homes[name].add(level)
        assert {name: levels for name, levels in homes.items() if len(levels) > 1} == {}


def test_the_source_distribution_has_the_kernels(tmp_path: Path) -> None:
    code = "import sys; from scikit_build_core.build import build_sdist; build_sdist(sys.argv[1])"
    subprocess.run([sys.executable, "-c", code, tmp_path], cwd=ROOT, check=True, capture_output=True)
    (archive,) = tmp_path.iterdir()
    with tarfile.open(archive) as opened:
        names = {name.split("/", 1)[1] for name in opened.getnames()}
    native = [file.relative_to(ROOT).as_posix() for file in (ROOT / "native").rglob("*") if file.is_file()]
    assert "native/CMakeLists.txt" in native
    assert set(native) <= names
    assert not [name for name in names if name.endswith(".so") or name.startswith((".venv", "build/"))]
