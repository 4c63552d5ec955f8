"""Loading the native library, or not."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

import pytest

from headrace.kernels.cpu import NoNativeLibrary, load_cpu_kernels

MODULE = "headrace.kernels.cpu._native"


class Unloadable(MetaPathFinder, Loader):
    """Finds the library and cannot load it, as where it was built for another machine."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        return ModuleSpec(name, self) if name == MODULE else None

    def create_module(self, spec: ModuleSpec) -> None:
        """The import system's own kind of module."""

    def exec_module(self, module: ModuleType) -> None:
        raise ImportError("libstdc++.so.6: version `GLIBCXX_3.4.99' not found")


def test_a_library_that_was_not_built(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(NoNativeLibrary, match="built without the native library"):
        load_cpu_kernels(1)


def test_a_library_that_does_not_load(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, MODULE, raising=False)
    monkeypatch.setattr(sys, "meta_path", [Unloadable(), *sys.meta_path])
    with pytest.raises(NoNativeLibrary, match=r"does not load: .*GLIBCXX_3\.4\.99"):
        load_cpu_kernels(1)


def test_the_name_says_what_the_machine_can() -> None:
    native = pytest.importorskip(MODULE)
    assert load_cpu_kernels(1).name == f"native {native.isa_levels()[-1]}"
