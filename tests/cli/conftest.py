"""A real server for the commands that call one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from running_server import Server, serving


@pytest.fixture(scope="session")
def called_server(smollm2_path: Path) -> Iterator[Server]:
    with serving(
        str(smollm2_path), "--served-model-name", "smol", "--max-model-len", "2048", "--api-key", "sesame"
    ) as running:
        yield running


@pytest.fixture
def remote(called_server: Server) -> dict[str, str]:
    """The environment that leads the client and its commands there."""
    return {"HEADRACE_BASE_URL": called_server.url, "HEADRACE_API_KEY": "sesame", "NO_COLOR": "1"}
