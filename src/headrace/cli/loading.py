"""From the configuration of models to what answers for them: their engines, their text, and the two put together."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace.cli.progress import LoadProgress
from headrace.cli.threads import in_thread
from headrace.cli.throughput import ThroughputLog
from headrace.config.sections import ModelConfig, ServeConfig
from headrace.core.errors import StartupError
from headrace.core.request import StepStats
from headrace.hub import Checkpoint, model_role, open_checkpoint
from headrace.metrics import Metrics, ModelMetrics
from headrace.runtime import EngineHost
from headrace.runtime.client import StatsListener
from headrace.service.assembly import assemble
from headrace.service.roles import GENERATE
from headrace.service.served_model import ServedModel

if TYPE_CHECKING:
    from headrace.service.model_text import ModelText


log = logging.getLogger(__name__)

_SHARED = ""
"""The place of engines that share a process; no model has this name."""


class ModelLoader:
    """Loads the models of one server. Their engines share a process, unless the configuration isolates them."""

    def __init__(self, config: ServeConfig, metrics: Metrics, throughput: ThroughputLog) -> None:
        self._config = config
        self._metrics = metrics
        self._throughput = throughput
        self._hosts: dict[str, EngineHost] = {}
        self.models = [ServedModel(served, self.load) for served in config.served]

    @property
    def eager(self) -> list[ServedModel]:
        """The models that are loaded without being asked for."""
        return [model for model in self.models if not model.config.lazy]

    def launch(self) -> None:
        """Start the processes that will be needed at once: they import while this one does other things."""
        for model in self.eager:
            self._host_of(model).launch()

    async def find_all(self, models: Sequence[ServedModel]) -> list[Checkpoint]:
        """The checkpoints of `models`, fetched if need be. Raises `StartupError`."""
        return await asyncio.gather(*map(self._find, models))

    async def load_all(self, models: Sequence[ServedModel], checkpoints: Sequence[Checkpoint]) -> None:
        """Load them together. Raises `StartupError` at the first that cannot be loaded."""
        await asyncio.gather(*map(self._load, models, checkpoints))

    async def load(self, model: ServedModel) -> None:
        """Load one, fetched first if need be. Raises `StartupError`."""
        await self._load(model, await self._find(model))

    async def look_at_lazy(self) -> None:
        """Learn what lazy models on this machine are for, by their headers."""
        for model in self.models:
            if model.role is None and os.path.exists(os.path.expanduser(model.config.model.model)):
                try:
                    await self._find(model)
                except StartupError as problem:
                    log.warning("%s cannot be loaded as it is: %s", model.name, problem.message)

    async def stop(self, *, at_once: bool) -> None:
        """End all engines; `at_once` does not let them finish a step."""
        await asyncio.gather(*(host.stop(at_once=at_once) for host in self._hosts.values()))

    async def _find(self, model: ServedModel) -> Checkpoint:
        config = model.config
        checkpoint = await in_thread(
            open_checkpoint, config.model.model, revision=config.model.revision, overrides=config.engine.hf_overrides
        )
        model.role = model_role(checkpoint, config.engine)
        return checkpoint

    async def _load(self, model: ServedModel, checkpoint: Checkpoint) -> None:
        """The tokenizer is read while the engine loads."""
        config, metrics, progress = model.config, self._metrics.model(model.name), LoadProgress()
        host = self._host_of(model)
        engine = host.engine(
            str(checkpoint.path),
            config.engine,
            self._listener(model.name, metrics),
            progress,
            memory_share=self._memory_share(),
        )
        starting = asyncio.create_task(engine.start(), name=f"start-{model.name}")
        try:
            text = await in_thread(_load_text, config.model, checkpoint)
            info = await starting
            runs = assemble(
                engine, text, config.model, config.limits, seed=self._config.seed, metrics=metrics, name=model.name
            )
        except BaseException:
            starting.cancel()
            await engine.stop()
            if self._config.isolate:
                await host.stop(at_once=True)
            await asyncio.gather(starting, return_exceptions=True)
            raise
        finally:
            progress.close()
        metrics.engine_loaded(info)
        model.open(runs)

    def _host_of(self, model: ServedModel) -> EngineHost:
        place = model.name if self._config.isolate else _SHARED
        if place not in self._hosts:
            self._hosts[place] = EngineHost()
        return self._hosts[place]

    def _memory_share(self) -> float:
        """Of the memory that one generator would take by default, which they all take together."""
        return 1 / max(1, sum(model.can(GENERATE) is not False for model in self.models))

    def _listener(self, name: str, metrics: ModelMetrics) -> StatsListener:
        throughput = self._throughput.model(name)

        def on_step(stats: StepStats) -> None:
            metrics.on_step(stats)
            throughput.on_step(stats)

        return on_step


def _load_text(config: ModelConfig, checkpoint: Checkpoint) -> ModelText:
    from headrace.service.model_text import load_model_text

    return load_model_text(config, checkpoint)
