"""A real server, and both clients."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from both_clients import Driver, drive_async, drive_sync
from running_server import Server, serving


@pytest.fixture(scope="session")
def server(smollm2_path: Path) -> Iterator[Server]:
    flags = ("--served-model-name", "smol", "--max-model-len", "2048", "--enable-request-id-headers")
    with serving(str(smollm2_path), *flags) as running:
        yield running


@pytest.fixture(scope="session")
def pooling_server(minilm_path: Path) -> Iterator[Server]:
    with serving(str(minilm_path), "--served-model-name", "mini") as running:
        yield running


@pytest.fixture(params=[drive_sync, drive_async], ids=["sync", "async"])
def drive(request: pytest.FixtureRequest) -> Driver:
    return request.param


@pytest.fixture(autouse=True)
def _no_key_of_the_users_own(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HEADRACE_API_KEY", "OPENAI_API_KEY", "HEADRACE_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
