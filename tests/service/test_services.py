"""What the protocols are given before, while and after a model is there."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from scripted_client import ScriptedEngine

from headrace.core.errors import NotReady
from headrace.runtime import EngineState
from headrace.service import Generator, Services


def test_generator_comes_with_the_model(make_generator: Callable[..., Generator]) -> None:
    engine = ScriptedEngine()
    services = Services(model_names=("smol", "alias"), model_root="smollm2", metrics=None)
    assert not services.healthy
    with pytest.raises(NotReady):
        _ = services.generator
    generator = make_generator(engine)
    services.open(generator)
    assert services.generator is generator
    assert services.healthy


@pytest.mark.parametrize("state", [EngineState.DEAD, EngineState.RESTARTING, EngineState.STOPPED])
def test_not_healthy_without_an_engine(make_generator: Callable[..., Generator], state: EngineState) -> None:
    engine = ScriptedEngine()
    services = Services(model_names=("smol",), model_root="smollm2", metrics=None)
    services.open(make_generator(engine))
    engine.state = state
    assert not services.healthy
    assert services.engine_state is state
