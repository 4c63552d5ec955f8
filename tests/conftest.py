"""Fixtures that several folders share: the real models."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from headrace.hub import pull
from headrace.runtime.environment import prepare_this_process

prepare_this_process()


@pytest.fixture(scope="session", autouse=True)
def _state_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Servers that are not told where to keep their jobs keep them here, not in the user's own folder."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("XDG_STATE_HOME", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture(scope="session")
def smollm2_path() -> Path:
    """SmolLM2-135M-Instruct, GGUF Q4_1."""
    return pull("smollm2", progress=False)


@pytest.fixture(scope="session")
def minilm_path() -> Path:
    """all-MiniLM-L6-v2, safetensors."""
    return pull("minilm", progress=False)


@pytest.fixture(scope="session")
def gemma3_path() -> Path:
    """Gemma 3 270M, GGUF Q4_K_M."""
    return pull("gemma3-270m", progress=False)


@pytest.fixture(scope="session")
def run_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A temporary folder that all workers of this run of the tests share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@pytest.fixture(scope="session")
def smollm2_reference(smollm2_path: Path, run_folder: Path) -> Any:
    """What transformers makes of SmolLM2's file, in float32."""
    return transformers_model(smollm2_path, run_folder)


@pytest.fixture(scope="session")
def gemma3_reference(gemma3_path: Path, run_folder: Path) -> Any:
    """What transformers makes of Gemma 3's file, in float32."""
    return transformers_model(gemma3_path, run_folder)


def transformers_model(path: Path, run_folder: Path) -> Any:
    """It takes transformers most of a minute to read a GGUF file, so one worker does and keeps the model."""
    import torch  # seconds, and most tests need neither
    from transformers import AutoModelForCausalLM

    kept = run_folder / f"{path.stem}.pt"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=torch.float32)
            torch.save(model.eval(), kept)
    return torch.load(kept, weights_only=False)
