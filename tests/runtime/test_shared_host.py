"""Several engines in one process: each has its own life, and all of them its death."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripted_child import COMMAND

from headrace.config.engine import EngineConfig
from headrace.core.errors import EngineDead, StartupError
from headrace.core.pooling import PoolingOutput, PoolingParams, PoolingRequest, PoolingTask
from headrace.core.request import Request, StepStats
from headrace.core.sampling import TokenSampling
from headrace.runtime import EngineHost, EngineState, HostedEngine, RequestStream, host


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "RESTART_DELAY", 0.01)


def request(name: str, *, tokens: int = 5) -> Request:
    sampling = TokenSampling(temperature=1.0, seed=1, max_tokens=tokens)
    return Request(request_id=name, prompt_ids=[1], sampling=sampling)


def embedding(name: str, *prompt_ids: int) -> PoolingRequest:
    params = PoolingParams(task=PoolingTask.EMBED)
    return PoolingRequest(request_id=name, prompt_ids=list(prompt_ids), params=params)


async def tokens_of(stream: RequestStream) -> list[int]:
    return [token async for outputs in stream for output in outputs for token in output.token_ids]


class Shared:
    """A host, and engines in it whose lives go as a script says; see `scripted_child`."""

    def __init__(self, folder: Path) -> None:
        self.host = EngineHost(command=COMMAND)
        self._folder = folder

    def generator(self, name: str, script: str = "fine") -> HostedEngine:
        return self.host.engine(self._write(name, script), EngineConfig())

    def pooler(
        self, name: str, script: str = "fine", on_stats: Callable[[StepStats], None] | None = None
    ) -> HostedEngine:
        return self.host.engine(self._write(name, script), EngineConfig(runner="pooling"), on_stats)

    def lives(self, name: str) -> int:
        return int((self._folder / f"{name}.lives").read_text())

    def _write(self, name: str, script: str) -> str:
        path = self._folder / name
        path.write_text(script)
        return str(path)


def with_host(test: Callable[[Shared], object]) -> Callable[[Path], None]:
    """Run a test with a host of its own, which is ended however the test ends."""

    def run(tmp_path: Path) -> None:
        async def bounded() -> None:
            shared = Shared(tmp_path)
            try:
                async with asyncio.timeout(30):
                    await test(shared)
            finally:
                await shared.host.stop()

        asyncio.run(bounded())

    run.__name__ = test.__name__
    return run


@asynccontextmanager
async def death(shared: Shared, *engines: HostedEngine) -> AsyncIterator[None]:
    """Kill the process, run the block once the engines have noticed, and go on when all of them are back."""
    os.kill(shared.host.pid, signal.SIGKILL)
    while any(engine.state is EngineState.READY for engine in engines):
        await asyncio.sleep(0.001)
    yield
    while any(engine.state is EngineState.RESTARTING for engine in engines):
        await asyncio.sleep(0.005)


@with_host
async def test_engines_of_both_kinds_answer_at_the_same_time(shared: Shared) -> None:
    generator, pooler = shared.generator("g"), shared.pooler("p")
    await asyncio.gather(generator.start(), pooler.start())
    stream = generator.submit(request("same id", tokens=20))
    pooled = await asyncio.gather(*(pooler.pool(embedding(f"e{number}", number, 2)) for number in range(5)))
    assert await tokens_of(stream) == list(range(20))
    expected = [memoryview(each.data).cast("f").tolist() for each in pooled]
    assert expected == [[float(number), 2.0] for number in range(5)]
    with pytest.raises(ValueError, match="in use"):
        _ = pooler.pool(embedding("twice", 1)), pooler.pool(embedding("twice", 1))


@with_host
async def test_a_refused_input_is_told_as_an_output(shared: Shared) -> None:
    pooler = shared.pooler("p")
    await pooler.start()
    assert "at least 1 token" in (await pooler.pool(embedding("empty"))).error


@with_host
async def test_a_death_ends_what_runs_in_all_engines_and_all_come_back(shared: Shared) -> None:
    generator, pooler = shared.generator("g"), shared.pooler("p")
    await asyncio.gather(generator.start(), pooler.start())
    stream = generator.submit(request("long", tokens=100_000))
    await anext(stream)
    os.kill(shared.host.pid, signal.SIGSTOP)
    pooled = pooler.pool(embedding("never", 1))
    async with death(shared, generator, pooler):
        with pytest.raises(EngineDead, match="signal 9"):
            await tokens_of(stream)
        with pytest.raises(EngineDead, match="signal 9"):
            await pooled
    assert await tokens_of(generator.submit(request("again"))) == [0, 1, 2, 3, 4]
    assert (await pooler.pool(embedding("again", 1))).shape == [1]
    assert (shared.lives("g"), shared.lives("p")) == (2, 2)


@with_host
async def test_one_that_cannot_be_loaded_disturbs_nobody(shared: Shared) -> None:
    generator, broken = shared.generator("g"), shared.pooler("p", "refuses")
    await generator.start()
    stream, pid = generator.submit(request("a", tokens=200)), shared.host.pid
    with pytest.raises(StartupError, match="no such weights"):
        await broken.start()
    assert broken.state is EngineState.DEAD
    with pytest.raises(EngineDead, match="no such weights"):
        broken.pool(embedding("late", 1))
    assert await tokens_of(stream) == list(range(200))
    assert shared.host.pid == pid
    another = shared.pooler("p2")
    await another.start()
    assert (await another.pool(embedding("e", 1))).shape == [1]


@with_host
async def test_while_one_is_loaded_the_others_go_on(shared: Shared) -> None:
    generator, slow = shared.generator("g"), shared.pooler("p", "slow")
    await generator.start()
    starting = asyncio.create_task(slow.start())
    assert await tokens_of(generator.submit(request("a", tokens=100))) == list(range(100))
    assert slow.state is EngineState.LOADING
    assert not starting.done()
    await slow.stop()
    with pytest.raises(StartupError, match="stopped while it was loading"):
        await starting
    assert await tokens_of(generator.submit(request("b"))) == [0, 1, 2, 3, 4]


@with_host
async def test_one_that_kills_the_process_while_it_is_loaded_is_not_tried_again(shared: Shared) -> None:
    generator, deadly = shared.generator("g"), shared.pooler("p", "dies")
    await generator.start()
    stream = generator.submit(request("a", tokens=100_000))
    with pytest.raises(StartupError, match="exit code 3"):
        await deadly.start()
    with pytest.raises(EngineDead, match="exit code 3"):
        await tokens_of(stream)
    while generator.state is not EngineState.READY:
        await asyncio.sleep(0.005)
    assert await tokens_of(generator.submit(request("b"))) == [0, 1, 2, 3, 4]
    assert (shared.lives("g"), shared.lives("p")) == (2, 1)


@with_host
async def test_one_that_cannot_be_loaded_again_leaves_the_others(shared: Shared) -> None:
    generator, broken = shared.generator("g"), shared.pooler("p", "fine refuses")
    await asyncio.gather(generator.start(), broken.start())
    async with death(shared, generator, broken):
        pass
    assert broken.state is EngineState.DEAD
    with pytest.raises(EngineDead, match=r"not started again\. no such weights"):
        broken.pool(embedding("late", 1))
    assert await tokens_of(generator.submit(request("b"))) == [0, 1, 2, 3, 4]


@with_host
async def test_a_host_whose_only_engine_died_loading_takes_another(shared: Shared) -> None:
    with pytest.raises(StartupError, match="exit code 3"):
        await shared.generator("g", "dies").start()
    generator = shared.generator("h")
    await generator.start()
    assert await tokens_of(generator.submit(request("a"))) == [0, 1, 2, 3, 4]


@with_host
async def test_one_engine_is_stopped_and_the_others_go_on(shared: Shared) -> None:
    generator, pooler = shared.generator("g"), shared.pooler("p")
    await asyncio.gather(generator.start(), pooler.start())
    stream = generator.submit(request("a", tokens=100_000))
    await anext(stream)
    await generator.stop()
    with pytest.raises(EngineDead, match="stopped"):
        await tokens_of(stream)
    with pytest.raises(EngineDead, match="stopped"):
        generator.submit(request("late"))
    assert (await pooler.pool(embedding("e", 1))).shape == [1]
    async with death(shared, pooler):
        pass
    assert (shared.lives("g"), shared.lives("p")) == (1, 2)


@with_host
async def test_a_cancelled_pooling_is_aborted(shared: Shared) -> None:
    waiting: list[int] = []
    pooler = shared.pooler("p", on_stats=lambda stats: waiting.append(stats.waiting))
    await pooler.start()
    pooled: list[asyncio.Future[PoolingOutput]] = [pooler.pool(embedding(f"e{number}", 1)) for number in range(2000)]
    await pooled[0]
    for future in pooled[1:]:
        future.cancel()
    # 2000 steps of 2 ms would take four seconds
    async with asyncio.timeout(2):
        assert (await pooler.pool(embedding("next", 1))).shape == [1]
    assert max(waiting) > 1000
