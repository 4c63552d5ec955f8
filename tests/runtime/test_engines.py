"""The two places an engine can live behave the same; the child process is replaced when it dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import pytest

from headrace.config.engine import EngineConfig
from headrace.core.errors import EngineDead, NotReady, StartupError
from headrace.core.pooling import PoolingParams, PoolingRequest, PoolingTask
from headrace.core.request import FinishReason, Request, StepStats
from headrace.core.sampling import TokenSampling
from headrace.runtime import EngineClient, EngineHost, EngineState, LocalEngine, RequestStream

CONFIG = EngineConfig(max_model_len=512, kv_cache_memory_bytes=100_000_000)
PROMPT = [504, 3575, 282, 4649, 314]
"""'The capital of France is' in SmolLM2's vocabulary."""


def request(
    name: str, *, max_tokens: int = 8, n: int = 1, prompt: list[int] = PROMPT, temperature: float = 0.0
) -> Request:
    sampling = TokenSampling(temperature=temperature, seed=1, max_tokens=max_tokens, ignore_eos=True)
    return Request(request_id=name, prompt_ids=prompt, sampling=sampling, n=n)


def embedding(name: str) -> PoolingRequest:
    return PoolingRequest(request_id=name, prompt_ids=[101, 7592, 102], params=PoolingParams(task=PoolingTask.EMBED))


async def collect(stream: RequestStream) -> dict[int, list[int]]:
    tokens: dict[int, list[int]] = {}
    async for outputs in stream:
        for output in outputs:
            tokens.setdefault(output.choice, []).extend(output.token_ids)
    return tokens


class Watch:
    """The last statistics, and an event for each condition one waits for."""

    def __init__(self) -> None:
        self.last = StepStats()
        self._changed = asyncio.Event()

    def __call__(self, stats: StepStats) -> None:
        self.last = stats
        self._changed.set()

    async def until(self, condition: Callable[[StepStats], bool]) -> None:
        while not condition(self.last):
            self._changed.clear()
            await self._changed.wait()


@asynccontextmanager
async def local_engine(path: Path, watch: Watch) -> AsyncIterator[EngineClient]:
    engine = LocalEngine(str(path), CONFIG, watch)
    try:
        yield engine
    finally:
        await engine.stop()


@asynccontextmanager
async def hosted_engine(path: Path, watch: Watch) -> AsyncIterator[EngineClient]:
    host = EngineHost()
    try:
        yield host.engine(str(path), CONFIG, watch)
    finally:
        await host.stop()


Kind = Callable[[Path, Watch], AbstractAsyncContextManager[EngineClient]]


def with_engine(kind: Kind, path: Path, use: Callable[[EngineClient, Watch], Awaitable[None]]) -> None:
    async def run() -> None:
        watch = Watch()
        async with kind(path, watch) as engine, asyncio.timeout(120):
            await engine.start()
            await use(engine, watch)

    asyncio.run(run())


@pytest.fixture(params=[local_engine, hosted_engine], ids=["local", "hosted"])
def kind(request: pytest.FixtureRequest) -> Kind:
    return request.param


def test_requests_in_parallel(kind: Kind, smollm2_path: Path) -> None:
    async def use(engine: EngineClient, watch: Watch) -> None:
        assert engine.state is EngineState.READY
        assert engine.info.max_model_len == 512
        assert engine.info.vocab_size == 49152
        streams = [engine.submit(request(f"r{i}")) for i in range(3)]
        sampled = engine.submit(request("sampled", n=3, temperature=1.0))
        same = await asyncio.gather(*(collect(stream) for stream in streams))
        assert same[0] == same[1] == same[2]
        assert len(same[0][0]) == 8
        choices = await collect(sampled)
        assert sorted(choices) == [0, 1, 2]
        assert len({tuple(ids) for ids in choices.values()}) == 3

    with_engine(kind, smollm2_path, use)


def test_leaving_a_stream_frees_its_blocks(kind: Kind, smollm2_path: Path) -> None:
    async def use(engine: EngineClient, watch: Watch) -> None:
        async with engine.submit(request("long", max_tokens=400)) as stream:
            await anext(stream)
            assert watch.last.running == 1
        await watch.until(lambda stats: stats.running == 0 and stats.kv_usage == 0)

    with_engine(kind, smollm2_path, use)


def test_one_choice_ends_early(kind: Kind, smollm2_path: Path) -> None:
    async def use(engine: EngineClient, watch: Watch) -> None:
        stream = engine.submit(request("two", n=2, max_tokens=30, temperature=1.0))
        counts = {0: 0, 1: 0}
        async for outputs in stream:
            for output in outputs:
                counts[output.choice] += len(output.token_ids)
            if counts[1] >= 3:
                stream.abort(1)
        assert counts[0] == 30
        assert counts[1] < 30

    with_engine(kind, smollm2_path, use)


def test_an_impossible_request_ends_with_an_error(kind: Kind, smollm2_path: Path) -> None:
    async def use(engine: EngineClient, watch: Watch) -> None:
        outputs = [output async for batch in engine.submit(request("long", prompt=[5] * 600)) for output in batch]
        assert [output.finish_reason for output in outputs] == [FinishReason.ERROR]
        assert "512" in outputs[0].error
        assert len((await collect(engine.submit(request("next"))))[0]) == 8

    with_engine(kind, smollm2_path, use)


def test_a_model_that_cannot_be_loaded(kind: Kind, tmp_path: Path) -> None:
    broken = tmp_path / "broken.gguf"
    broken.write_bytes(b"not a model")

    async def start() -> None:
        async with kind(broken, Watch()) as engine:
            with pytest.raises(StartupError, match=r"broken\.gguf"):
                await engine.start()

    asyncio.run(start())


def test_a_dead_child_is_replaced_with_all_its_engines(smollm2_path: Path, minilm_path: Path) -> None:
    async def run() -> None:
        watch, host = Watch(), EngineHost()
        engine = host.engine(str(smollm2_path), CONFIG, watch)
        embedder = host.engine(str(minilm_path), EngineConfig())
        try:
            async with asyncio.timeout(120):
                await asyncio.gather(engine.start(), embedder.start())
                before = await asyncio.gather(collect(engine.submit(request("before"))), embedder.pool(embedding("e")))
                stream, pooled = engine.submit(request("cut", max_tokens=400)), None
                await anext(stream)
                dead = host.pid
                os.kill(dead, signal.SIGSTOP)
                pooled = embedder.pool(embedding("cut"))
                os.kill(dead, signal.SIGKILL)
                with pytest.raises(EngineDead, match="signal 9"):
                    await collect(stream)
                with pytest.raises(EngineDead, match="signal 9"):
                    await pooled
                assert engine.state is embedder.state is EngineState.RESTARTING
                assert watch.last.running == 0
                with pytest.raises(NotReady):
                    engine.submit(request("too early"))
                while not engine.state is embedder.state is EngineState.READY:
                    await asyncio.sleep(0.01)
                assert host.pid != dead
                after = await asyncio.gather(collect(engine.submit(request("after"))), embedder.pool(embedding("f")))
                assert after[0] == before[0]
                assert after[1].data == before[1].data
        finally:
            await host.stop()

    asyncio.run(run())


PARENT = """
import asyncio, sys
from headrace.config.engine import EngineConfig
from headrace.runtime import EngineHost

async def main():
    host = EngineHost()
    await host.engine(sys.argv[1], EngineConfig(max_model_len=512)).start()
    print(host.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


def test_the_child_ends_with_its_parent(smollm2_path: Path) -> None:
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(smollm2_path)], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.communicate()
    for _ in range(300):
        try:
            os.kill(child, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail("the child lives on")
