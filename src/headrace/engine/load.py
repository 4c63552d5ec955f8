"""The engine that a checkpoint needs."""

from __future__ import annotations

from headrace.config.engine import EngineConfig
from headrace.engine.engine import Engine
from headrace.engine.pooling_engine import PoolingEngine
from headrace.hub import Runner, model_role, open_checkpoint
from headrace.weights import Progress

AnyEngine = Engine | PoolingEngine


def load_engine(
    model_path: str, config: EngineConfig, progress: Progress | None = None, *, memory_share: float = 1.0
) -> AnyEngine:
    """An engine for a checkpoint on this machine: one that generates or, by its files or the flags, one that pools.

    `memory_share`: the part of the default memory for keys and values that it may take, beside other engines.
    Raises `StartupError`.
    """
    checkpoint = open_checkpoint(model_path, overrides=config.hf_overrides)
    role = model_role(checkpoint, config)
    if role.runner is Runner.GENERATE:
        return Engine(checkpoint, config, progress, memory_share=memory_share)
    return PoolingEngine(checkpoint, role, config, progress, memory_share=memory_share)
