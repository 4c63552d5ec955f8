"""One real server for all examples, under the model names that the user's own documents use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import Server, serving


@pytest.fixture(scope="session")
def example_server(smollm2_path: Path) -> Iterator[Server]:
    names = ("smol", "facebook/opt-125m", "Qwen/Qwen3-0.6B")
    with serving(str(smollm2_path), "--served-model-name", *names, "--max-model-len", "2048") as running:
        yield running
