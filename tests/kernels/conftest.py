from __future__ import annotations

from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def library() -> ModuleType:
    return pytest.importorskip("headrace.kernels.cpu._native", reason="the native library was not built")


@pytest.fixture(params=["portable", "avx2", "avx512", "avx512vnni"])
def pool(request: pytest.FixtureRequest, library: ModuleType) -> Any:
    if request.param not in library.isa_levels():
        pytest.skip(f"no {request.param} on this machine")
    return library.Pool(2, request.param)
