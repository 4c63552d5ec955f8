"""A real server for the tests of this folder."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest
from running_server import Server, serving


@pytest.fixture(scope="session")
def start_server() -> Callable[..., contextlib.AbstractContextManager[Server]]:
    return serving


@pytest.fixture(scope="session")
def server(smollm2_path: Path) -> Iterator[Server]:
    """SmolLM2 with the flags that most tests need."""
    with serving(
        str(smollm2_path),
        "--served-model-name",
        "smol",
        "smol-alias",
        "--max-model-len",
        "2048",
        "--enable-request-id-headers",
        "--enable-tokenizer-info-endpoint",
        "--enable-prompt-tokens-details",
    ) as running:
        yield running


@pytest.fixture(scope="session")
def tool_server(smollm2_path: Path) -> Iterator[Server]:
    """SmolLM2 with a template that shows it tools, read as Hermes."""
    with serving(
        str(smollm2_path),
        "--served-model-name",
        "smol",
        "--max-model-len",
        "2048",
        "--chat-template",
        "hermes",
        "--enable-auto-tool-choice",
        "--tool-call-parser",
        "hermes",
        "--trust-request-chat-template",
    ) as running:
        yield running


@pytest.fixture
def client(server: Server) -> Iterator[openai.OpenAI]:
    with server.client() as client:
        yield client
