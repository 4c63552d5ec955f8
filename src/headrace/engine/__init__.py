"""Tensors: batch building, the forward pass, KV memory, sampling, pooling, and the step that ties them together."""

from headrace.engine.engine import Engine
from headrace.engine.load import AnyEngine, load_engine
from headrace.engine.pooling_engine import PoolingEngine
from headrace.weights import Progress

__all__ = ["AnyEngine", "Engine", "PoolingEngine", "Progress", "load_engine"]
