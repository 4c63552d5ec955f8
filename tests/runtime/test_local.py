"""An engine in a thread: its failures reach everyone, and it never outlives its event loop."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest
from scripted_child import ScriptedEngine

from headrace import engine as engine_package
from headrace.config.engine import EngineConfig
from headrace.core.errors import EngineDead, StartupError
from headrace.core.request import Request, StepOutput
from headrace.core.sampling import TokenSampling
from headrace.runtime import EngineState, LocalEngine


def request(tokens: int = 3) -> Request:
    sampling = TokenSampling(temperature=1.0, seed=1, max_tokens=tokens)
    return Request(request_id="a", prompt_ids=[1], sampling=sampling)


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Callable[..., LocalEngine]:
    """A local engine that loads by calling `load`."""

    def make(load: Callable[..., ScriptedEngine]) -> LocalEngine:
        monkeypatch.setattr(engine_package, "load_engine", load)
        return LocalEngine("nowhere", EngineConfig())

    return make


@pytest.fixture(autouse=True)
def no_thread_is_left(monkeypatch: pytest.MonkeyPatch):
    noise: list[object] = []
    monkeypatch.setattr(threading, "excepthook", noise.append)
    yield
    for thread in threading.enumerate():
        if thread.name == "headrace-engine":
            thread.join(5)
            assert not thread.is_alive()
    assert noise == []


def test_an_engine_that_dies_fails_its_requests(
    scripted: Callable[..., LocalEngine], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: ScriptedEngine) -> StepOutput:
        raise RuntimeError("the device has failed")

    monkeypatch.setattr(ScriptedEngine, "step", broken)

    async def run() -> None:
        engine = scripted(lambda *_: ScriptedEngine())
        await engine.start()
        async with asyncio.timeout(5):
            with pytest.raises(EngineDead, match="the device has failed"):
                await anext(engine.submit(request()))
            assert engine.state is EngineState.DEAD
            with pytest.raises(EngineDead):
                engine.submit(request())
            await engine.stop()

    asyncio.run(run())


def test_a_load_that_fails_in_an_unforeseen_way(scripted: Callable[..., LocalEngine]) -> None:
    def load(*_: object) -> ScriptedEngine:
        raise MemoryError("no room")

    async def run() -> None:
        engine = scripted(load)
        with pytest.raises(MemoryError):
            await engine.start()
        assert engine.state is EngineState.DEAD
        await engine.stop()

    asyncio.run(run())


def test_a_stop_while_it_loads(scripted: Callable[..., LocalEngine]) -> None:
    async def run() -> None:
        engine = scripted(lambda *_: time.sleep(0.2) or ScriptedEngine())
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0.05)
        await engine.stop()
        await asyncio.gather(starting, return_exceptions=True)
        assert engine.state is EngineState.STOPPED
        with pytest.raises(EngineDead):
            engine.submit(request())

    asyncio.run(run())


@pytest.mark.parametrize("outcome", ["loads", "fails"])
def test_a_loop_that_ends_while_it_loads(scripted: Callable[..., LocalEngine], outcome: str) -> None:
    """As when Ctrl-C interrupts `LLM(...)`."""
    closed = threading.Event()

    def load(*_: object) -> ScriptedEngine:
        closed.wait(5)
        if outcome == "fails":
            raise StartupError("damaged")
        return ScriptedEngine()

    async def run() -> None:
        engine = scripted(load)
        starting = asyncio.create_task(engine.start())
        await asyncio.sleep(0.05)
        starting.cancel()

    asyncio.run(run())
    closed.set()


def test_a_loop_that_ends_while_it_runs(scripted: Callable[..., LocalEngine]) -> None:
    async def run() -> None:
        engine = scripted(lambda *_: ScriptedEngine())
        await engine.start()
        await anext(engine.submit(request(tokens=1_000_000)))

    asyncio.run(run())
