"""An engine on the real model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.config.engine import EngineConfig
from headrace.engine import Engine
from headrace.hub import open_checkpoint


@pytest.fixture(scope="session")
def make_engine() -> Callable[..., Engine]:
    def make(path: Path, **config: Any) -> Engine:
        return Engine(open_checkpoint(str(path)), EngineConfig(**{"dtype": "float32", **config}))

    return make


@pytest.fixture(scope="session")
def smollm2_engine(smollm2_path: Path, make_engine: Callable[..., Engine]) -> Engine:
    return make_engine(smollm2_path, max_model_len=2048)
