"""Fixtures that several folders share: the real models."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.hub import pull
from headrace.runtime.environment import prepare_this_process

prepare_this_process()


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, GGUF Q4_1."""
    return pull("smollm2", progress=False)


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M, GGUF Q4_K_M."""
    return pull("gemma3-270m", progress=False)
