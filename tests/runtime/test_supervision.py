"""Every request ends exactly once and nothing is left behind, however and whenever the engine process dies."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from scripted_child import COMMAND, DEADLY

from headrace.config.engine import EngineConfig
from headrace.core.errors import EngineDead, NotReady, StartupError
from headrace.core.request import EngineInfo, Request, StepStats
from headrace.core.sampling import TokenSampling
from headrace.runtime import EngineHost, EngineState, RequestStream, host


@pytest.fixture(autouse=True)
def quick_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host, "RESTART_DELAY", 0.01)


@pytest.fixture(autouse=True)
def nothing_left_behind():
    files = set(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else set()
    yield
    for thread in threading.enumerate():
        if thread.name == "headrace-engine-exit":
            thread.join(1)  # it has told its end already
            assert not thread.is_alive()
    if files:
        assert len(os.listdir("/proc/self/fd")) <= len(files)


def request(name: str, *, tokens: int = 5, n: int = 1, prompt: tuple[int, ...] = (1,)) -> Request:
    sampling = TokenSampling(temperature=1.0, seed=1, max_tokens=tokens)
    return Request(request_id=name, prompt_ids=list(prompt), sampling=sampling, n=n)


async def tokens_of(stream: RequestStream) -> list[int]:
    return [token async for outputs in stream for output in outputs for token in output.token_ids]


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


class Alone:
    """An engine that has its host for itself."""

    def __init__(
        self,
        path: str,
        on_stats: Callable[[StepStats], None] | None = None,
        command: Sequence[str] = COMMAND,
    ) -> None:
        self._host = EngineHost(command=command)
        self._engine = self._host.engine(path, EngineConfig(), on_stats)
        self.submit = self._engine.submit
        self.stop = self._host.stop

    @property
    def state(self) -> EngineState:
        return self._engine.state

    @property
    def pid(self) -> int | None:
        return self._host.pid

    async def start(self) -> EngineInfo:
        return await self._engine.start()


@pytest.fixture
def scripted(tmp_path: Path) -> Callable[..., Alone]:
    """An engine whose lives go as `script` says; see `scripted_child`."""

    def make(script: str, on_stats: Callable[[StepStats], None] | None = None) -> Alone:
        path = tmp_path / "script"
        path.write_text(script)
        return Alone(str(path), on_stats)

    return make


@asynccontextmanager
async def started(engine: Alone) -> AsyncIterator[Alone]:
    async with asyncio.timeout(30):
        await engine.start()
        pid = engine.pid
        try:
            yield engine
        finally:
            pid = engine.pid or pid
            await engine.stop()
            assert engine.pid is None
            assert not alive(pid)


async def until(engine: Alone, state: EngineState) -> None:
    while engine.state is not state:
        await asyncio.sleep(0.005)


def test_requests_are_answered(scripted: Callable[..., Alone]) -> None:
    async def run() -> None:
        async with started(scripted("fine")) as engine:
            assert await tokens_of(engine.submit(request("a"))) == [0, 1, 2, 3, 4]
            with pytest.raises(ValueError, match="'b' is in use"):
                _ = engine.submit(request("b", tokens=1000)), engine.submit(request("b"))

    asyncio.run(run())


@pytest.mark.parametrize("when", ["idle", "running", "unnoticed"])
def test_a_death_ends_what_runs_and_the_next_life_answers(scripted: Callable[..., Alone], when: str) -> None:
    async def run() -> None:
        seen: list[StepStats] = []
        async with started(scripted("fine", seen.append)) as engine:
            streams: list[RequestStream] = []
            if when == "running":
                streams = [engine.submit(request(f"r{i}", tokens=100_000, n=2)) for i in range(3)]
                await asyncio.gather(*(anext(stream) for stream in streams))
            os.kill(engine.pid, signal.SIGKILL)
            if when == "unnoticed":  # handed to a process that is dead already
                streams = [engine.submit(request("late"))]
            for stream in streams:
                with pytest.raises(EngineDead, match="signal 9"):
                    await tokens_of(stream)
                stream.close()
            await until(engine, EngineState.RESTARTING)
            assert seen[-1] == StepStats()
            with pytest.raises(NotReady, match="being started again"):
                engine.submit(request("early"))
            await until(engine, EngineState.READY)
            assert await tokens_of(engine.submit(request("after"))) == [0, 1, 2, 3, 4]

    asyncio.run(run())


def test_it_is_given_up_after_five_restarts_and_says_why(scripted: Callable[..., Alone]) -> None:
    async def run() -> None:
        engine = scripted("fine")
        await engine.start()
        for life in range(6):
            async with asyncio.timeout(30):
                await until(engine, EngineState.READY)
                with pytest.raises(EngineDead, match="signal 9"):
                    await tokens_of(engine.submit(request(f"deadly-{life}", prompt=(DEADLY,))))
        assert engine.state is EngineState.DEAD
        with pytest.raises(EngineDead, match=r"not started again\. The engine process died \(signal 9"):
            engine.submit(request("late"))
        await engine.stop()

    asyncio.run(run())


def test_an_engine_that_was_steady_is_always_started_again(
    scripted: Callable[..., Alone], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(host, "STEADY_SECONDS", 0.0)
    monkeypatch.setattr(host, "MOST_RESTARTS", 1)

    async def run() -> None:
        async with started(scripted("fine")) as engine:
            for _ in range(3):
                os.kill(engine.pid, signal.SIGKILL)
                await until(engine, EngineState.RESTARTING)
                await until(engine, EngineState.READY)

    asyncio.run(run())


def test_deaths_while_loading_again_count_as_well(scripted: Callable[..., Alone], tmp_path: Path) -> None:
    """However long loading takes, it does not make an engine steady."""

    async def run() -> None:
        async with started(scripted("fine dies")) as engine:
            os.kill(engine.pid, signal.SIGKILL)
            await until(engine, EngineState.DEAD)
            with pytest.raises(EngineDead, match=r"while it loaded the model \(exit code 3\)"):
                engine.submit(request("late"))

    asyncio.run(run())
    assert (tmp_path / "script.lives").read_text() == "6"


def test_a_restart_that_can_never_work_is_not_repeated(scripted: Callable[..., Alone], tmp_path: Path) -> None:
    async def run() -> None:
        async with started(scripted("fine refuses")) as engine:
            os.kill(engine.pid, signal.SIGKILL)
            await until(engine, EngineState.DEAD)
            with pytest.raises(EngineDead, match="no such weights"):
                engine.submit(request("late"))

    asyncio.run(run())
    assert (tmp_path / "script.lives").read_text() == "2"


def test_a_message_that_makes_no_sense_ends_the_life_like_a_death(scripted: Callable[..., Alone]) -> None:
    async def run() -> None:
        async with started(scripted("fine garbage fine")) as engine:
            os.kill(engine.pid, signal.SIGKILL)
            await until(engine, EngineState.RESTARTING)
            await until(engine, EngineState.READY)
            assert await tokens_of(engine.submit(request("after"))) == [0, 1, 2, 3, 4]

    asyncio.run(run())


def test_a_process_that_cannot_be_started(tmp_path: Path) -> None:
    async def run() -> None:
        engine = Alone(str(tmp_path), command=("/no/such/program",))
        with pytest.raises(StartupError, match="/no/such/program"):
            await engine.start()
        assert engine.state is EngineState.DEAD
        await engine.stop()

    asyncio.run(run())


@pytest.mark.parametrize(("script", "message"), [("dies", "exit code 3"), ("refuses", "no such weights")])
def test_a_first_start_that_fails(scripted: Callable[..., Alone], script: str, message: str) -> None:
    async def run() -> None:
        engine = scripted(script)
        async with asyncio.timeout(30):
            with pytest.raises(StartupError, match=message):
                await engine.start()
        assert engine.state is EngineState.DEAD
        await engine.stop()
        assert engine.pid is None

    asyncio.run(run())


@pytest.mark.parametrize("again", [False, True], ids=["at-first", "again"])
def test_stopping_while_it_loads_waits_for_nothing(scripted: Callable[..., Alone], again: bool) -> None:
    async def run() -> None:
        engine = scripted("fine slow" if again else "slow")
        starting = asyncio.create_task(engine.start())
        if again:
            await starting
            os.kill(engine.pid, signal.SIGKILL)
            await until(engine, EngineState.RESTARTING)
        while engine.pid is None:
            await asyncio.sleep(0.005)
        await asyncio.sleep(0.3)
        pid = engine.pid
        async with asyncio.timeout(2):
            await engine.stop()
        assert not alive(pid)
        if not again:
            with pytest.raises(StartupError, match="stopped"):
                await starting

    asyncio.run(run())


def test_stopping_ends_what_runs(scripted: Callable[..., Alone]) -> None:
    async def run() -> None:
        engine = scripted("fine")
        await engine.start()
        stream = engine.submit(request("long", tokens=100_000))
        await anext(stream)
        await engine.stop()
        with pytest.raises(EngineDead, match="stopped"):
            await tokens_of(stream)
        with pytest.raises(EngineDead, match="stopped"):
            engine.submit(request("late"))
        await engine.stop()

    asyncio.run(run())


def test_a_stop_that_is_cancelled_still_ends_the_child(scripted: Callable[..., Alone]) -> None:
    async def run() -> None:
        engine = scripted("fine")
        await engine.start()
        pid = engine.pid
        os.kill(pid, signal.SIGSTOP)
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0.05)
        stopping.cancel()
        await asyncio.gather(stopping, return_exceptions=True)
        async with asyncio.timeout(5):
            while alive(pid):
                await asyncio.sleep(0.005)

    asyncio.run(run())


PARENT = """
import asyncio, sys
from headrace.config.engine import EngineConfig
from headrace.runtime import EngineHost

async def main():
    host = EngineHost(command=sys.argv[2:])
    host.launch()
    print(host.pid, flush=True)
    await host.engine(sys.argv[1], EngineConfig()).start()
    print("started", flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.parametrize("when", ["launched", "loading", "started"])
def test_nothing_is_left_of_a_parent_that_is_killed(tmp_path: Path, when: str) -> None:
    script = tmp_path / "script"
    script.write_text("slow" if when == "loading" else "fine")
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, str(script), *COMMAND],
        stdout=subprocess.PIPE,
        text=True,
    )
    child = int(parent.stdout.readline())
    if when == "started":
        assert parent.stdout.readline() == "started\n"
    while when == "loading" and not script.with_suffix(".lives").exists():
        pass
    parent.kill()
    parent.communicate()
    for _ in range(1000):
        if not alive(child):
            return
        threading.Event().wait(0.01)
    pytest.fail("the child lives on")
