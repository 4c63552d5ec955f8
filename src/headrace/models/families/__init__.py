"""One small file a family: config to `DecoderSpec` or `EncoderSpec`, and the names of its tensors."""

from headrace.models.families.bert import BERT, ELECTRA, ROBERTA
from headrace.models.families.distilbert import DISTILBERT
from headrace.models.families.gemma import GEMMA2, GEMMA3
from headrace.models.families.llama import LLAMA, MISTRAL
from headrace.models.families.modernbert import MODERNBERT
from headrace.models.families.mpnet import MPNET
from headrace.models.families.nomic import NOMIC
from headrace.models.families.olmo import OLMO2
from headrace.models.families.phi import PHI3
from headrace.models.families.qwen import QWEN2, QWEN3

FAMILIES = (LLAMA, MISTRAL, QWEN2, QWEN3, GEMMA2, GEMMA3, PHI3, OLMO2)
"""The decoders."""

ENCODER_FAMILIES = (BERT, ROBERTA, ELECTRA, DISTILBERT, MPNET, MODERNBERT, NOMIC)

__all__ = ["ENCODER_FAMILIES", "FAMILIES"]
