"""What the protocols are given before, while and after models are there, and which model a request means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import replace
from typing import Any

import pytest
from scripted_client import ScriptedEngine

from headrace.config.sections import LimitsConfig, ModelConfig, ServeConfig, ServedModelConfig
from headrace.core.errors import BadCheckpoint, BadRequest, EngineDead, NotFound, NotReady
from headrace.core.pooling import PoolingInfo, PoolingTask
from headrace.runtime import EngineState
from headrace.service import Generator, ServedModel, Services, served_model
from headrace.service.pooler import Pooler
from headrace.service.roles import GENERATE

EMBED, TOKEN_EMBED, CLASSIFY = PoolingTask.EMBED, PoolingTask.TOKEN_EMBED, PoolingTask.CLASSIFY


def config_of(*names: str, lazy: bool = False, model: str = "some/model") -> ServedModelConfig:
    (config,) = ServeConfig(model=ModelConfig(model=model, served_model_name=names)).served
    return replace(config, lazy=lazy)


@pytest.fixture
def generator(make_generator: Callable[..., Generator]) -> Generator:
    return make_generator(ScriptedEngine())


@pytest.fixture
def make_pooler() -> Iterator[Callable[..., Pooler]]:
    made: list[Pooler] = []

    def make(*tasks: PoolingTask) -> Pooler:
        engine = ScriptedEngine()
        engine.info = replace(engine.info, pooling=PoolingInfo(tasks=tasks, embedding_size=8, labels=("",)))
        pooler = Pooler(
            engine, None, None, score_template=None, limits=LimitsConfig(), metrics=None, model_name="pooler"
        )
        made.append(pooler)
        return pooler

    yield make
    for pooler in made:
        pooler.close()


def opened(config: ServedModelConfig, runs: Generator | Pooler) -> ServedModel:
    model = ServedModel(config)
    model.open(runs)
    return model


def answer(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def test_a_generator_comes_with_its_model(generator: Generator) -> None:
    model = ServedModel(config_of("smol", "alias"))
    services = Services([model], metrics=None)
    assert (services.healthy, services.engine_state) == (False, EngineState.LOADING)
    for asked in (services.generator(None), services.generator("alias"), services.loaded(None)):
        with pytest.raises(NotReady):
            answer(asked)
    model.open(generator)
    assert services.healthy
    for name in (None, "", "smol", "alias"):
        assert answer(services.generator(name)) is generator
    with pytest.raises(NotFound, match=r"`some/model` does not exist. Valid aliases: smol, alias\."):
        answer(services.generator("some/model"))


@pytest.mark.parametrize("state", [EngineState.DEAD, EngineState.RESTARTING, EngineState.STOPPED])
def test_not_healthy_without_an_engine(make_generator: Callable[..., Generator], state: EngineState) -> None:
    engine = ScriptedEngine()
    services = Services([opened(config_of("a"), make_generator(ScriptedEngine()))], metrics=None)
    assert services.healthy
    services = Services([*services.models, opened(config_of("b"), make_generator(engine))], metrics=None)
    engine.state = state
    assert (services.healthy, services.engine_state) == (False, state)


def test_a_request_without_a_name_means_the_first_that_can(
    generator: Generator, make_pooler: Callable[..., Pooler]
) -> None:
    embedder, ranker = make_pooler(EMBED, TOKEN_EMBED), make_pooler(CLASSIFY)
    models = [opened(config_of("e"), embedder), opened(config_of("g"), generator), opened(config_of("r"), ranker)]
    services = Services(models, metrics=None)
    assert answer(services.generator(None)) is generator
    assert answer(services.pooler(None, EMBED)) is embedder
    assert answer(services.pooler(None, CLASSIFY, EMBED)) is ranker
    assert answer(services.pooler("e", CLASSIFY, EMBED)) is embedder
    assert answer(services.loaded(None)) is embedder
    assert answer(services.loaded("g")) is generator
    assert answer(Services(models[:2], metrics=None).pooler(None, CLASSIFY, EMBED)) is embedder


def test_a_model_that_cannot_is_refused_and_the_ones_that_can_are_named(
    generator: Generator, make_pooler: Callable[..., Pooler]
) -> None:
    models = [opened(config_of("g"), generator), opened(config_of("e"), make_pooler(EMBED, TOKEN_EMBED))]
    services = Services(models, metrics=None)
    for work, message in (
        (services.pooler("g", EMBED), r"The model `g` cannot embed; `e` can\."),
        (services.generator("e"), r"The model `e` cannot generate text; `g` can\."),
        (services.pooler("g", CLASSIFY, EMBED), r"The model `g` cannot classify or embed; `e` can\."),
        (services.pooler("g", CLASSIFY), r"The model `g` cannot classify, and no model of this server can\."),
        (services.pooler(None, CLASSIFY), r"No model of this server can classify\."),
    ):
        with pytest.raises(BadRequest, match=message) as refused:
            answer(work)
        assert refused.value.parameter == "model"
    alone = Services(models[:1], metrics=None)
    with pytest.raises(BadRequest, match=r"No model of this server can embed; `headrace serve minilm` starts one"):
        answer(alone.pooler(None, EMBED))


@pytest.mark.parametrize(
    ("model", "engine", "can"),
    [
        ("smollm2", {}, {GENERATE: True, EMBED: False}),
        ("minilm", {}, {GENERATE: False, EMBED: True, CLASSIFY: False}),
        ("smollm2", {"convert": "embed"}, {GENERATE: False, EMBED: True}),
        ("org/model", {"task": "score"}, {GENERATE: False, EMBED: False, CLASSIFY: True}),
        ("org/model", {"runner": "generate"}, {GENERATE: True, EMBED: False}),
        ("org/model", {"runner": "pooling"}, {GENERATE: None, EMBED: None}),
        ("org/model", {}, {GENERATE: None, EMBED: None}),
    ],
)
def test_what_is_known_before_the_files_are_there(model: str, engine: dict[str, str], can: dict[Any, Any]) -> None:
    config = config_of(model=model)
    found = ServedModel(replace(config, engine=replace(config.engine, **engine)))
    assert {use: found.can(use) for use in can} == can


class Lazy:
    """A lazy model, how often it was loaded, and what loading does."""

    def __init__(self, runs: Generator | Pooler, **config: Any) -> None:
        self.loads = 0
        self.failure: Exception | None = None
        self.may_end = asyncio.Event()
        self._runs = runs
        self.model = ServedModel(config_of("lazy", lazy=True, **config), self._load)

    async def _load(self, model: ServedModel) -> None:
        self.loads += 1
        await self.may_end.wait()
        if self.failure is not None:
            raise self.failure
        model.open(self._runs)


def test_a_lazy_model_is_loaded_once_for_all_that_ask(generator: Generator, make_pooler: Callable[..., Pooler]) -> None:
    pooler = make_pooler(EMBED)

    async def work() -> None:
        lazy = Lazy(pooler, model="minilm")
        services = Services([opened(config_of("g"), generator), lazy.model], metrics=None)
        assert (services.healthy, lazy.model.state, lazy.loads) == (True, None, 0)
        asking = [asyncio.create_task(services.pooler(name, EMBED)) for name in (None, "lazy", None)]
        await asyncio.sleep(0)
        assert services.healthy
        assert await services.generator(None) is generator
        asking[0].cancel()
        await asyncio.sleep(0)
        lazy.may_end.set()
        assert [await each for each in asking[1:]] == [pooler, pooler]
        assert asking[0].cancelled()
        assert await services.pooler(None, EMBED) is pooler
        assert (lazy.loads, lazy.model.state) == (1, EngineState.READY)

    asyncio.run(work())


def test_a_load_that_fails_is_told_to_all_and_tried_again_later(
    make_pooler: Callable[..., Pooler], monkeypatch: pytest.MonkeyPatch
) -> None:
    pooler = make_pooler(EMBED)

    async def work() -> None:
        lazy = Lazy(pooler)
        lazy.failure = BadCheckpoint("no such weights")
        lazy.may_end.set()
        services = Services([lazy.model], metrics=None)
        for outcome in await asyncio.gather(*(services.pooler(None, EMBED) for _ in range(3)), return_exceptions=True):
            assert isinstance(outcome, EngineDead)
            assert outcome.message == "The model `lazy` cannot be loaded: no such weights"
        lazy.failure = None
        with pytest.raises(EngineDead, match="no such weights"):
            await services.pooler(None, EMBED)
        assert lazy.loads == 1
        monkeypatch.setattr(served_model, "RETRY_SECONDS", 0.0)
        assert await services.pooler(None, EMBED) is pooler
        assert lazy.loads == 2

    asyncio.run(work())


def test_a_lazy_model_may_turn_out_to_be_something_else(make_pooler: Callable[..., Pooler]) -> None:
    async def work() -> None:
        lazy = Lazy(make_pooler(EMBED))
        lazy.may_end.set()
        services = Services([lazy.model], metrics=None)
        with pytest.raises(BadRequest, match="`lazy` cannot generate text"):
            await services.generator(None)
        assert lazy.loads == 1
        with pytest.raises(BadRequest, match="cannot generate text"):
            await services.generator("lazy")

    asyncio.run(work())
