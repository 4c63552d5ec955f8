"""Tensors: batch building, the forward pass, KV memory, sampling, and the step that ties them together."""

from headrace.engine.engine import Engine, Progress

__all__ = ["Engine", "Progress"]
