"""Weights: tensors from safetensors and GGUF files into a model."""

from headrace.weights.load import Contents, Progress, load_weights, read_folder, read_weights

__all__ = ["Contents", "Progress", "load_weights", "read_folder", "read_weights"]
