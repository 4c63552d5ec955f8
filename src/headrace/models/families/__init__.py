"""One small file a family: config to `DecoderSpec`, and the names of its tensors."""

from headrace.models.families.gemma import GEMMA2, GEMMA3
from headrace.models.families.llama import LLAMA, MISTRAL
from headrace.models.families.olmo import OLMO2
from headrace.models.families.phi import PHI3
from headrace.models.families.qwen import QWEN2, QWEN3

FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3, OLMO2)

__all__ = ["FAMILIES"]
