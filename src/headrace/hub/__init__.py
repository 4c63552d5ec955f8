"""Where models come from: known names, local folders and files, the Hub. No torch."""

from headrace.hub.checkpoint import Checkpoint, WeightFormat
from headrace.hub.gguf import GGML_TYPES, GgmlType, GgufHeader, GgufTensor, read_gguf_header

__all__ = ["GGML_TYPES", "Checkpoint", "GgmlType", "GgufHeader", "GgufTensor", "WeightFormat", "read_gguf_header"]
