"""Weights: tensors from safetensors and GGUF files into a model."""

from headrace.weights.load import load_weights

__all__ = ["load_weights"]
