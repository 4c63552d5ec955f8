"""Where models come from: known names, local folders and files, the Hub. No torch."""

from headrace.hub.cache import ModelListing, list_models, models_dir
from headrace.hub.checkpoint import Checkpoint, WeightFormat
from headrace.hub.gguf import GGML_TYPES, GgmlType, GgufHeader, GgufTensor, read_gguf_header
from headrace.hub.known import KNOWN, KnownModel
from headrace.hub.open import open_checkpoint
from headrace.hub.pull import pull
from headrace.hub.sentence_files import DenseModule, NormModule, SentenceFiles, SentenceModules, read_sentence_files
from headrace.hub.task import ModelRole, Runner, model_role

__all__ = [
    "GGML_TYPES",
    "KNOWN",
    "Checkpoint",
    "DenseModule",
    "GgmlType",
    "GgufHeader",
    "GgufTensor",
    "KnownModel",
    "ModelListing",
    "ModelRole",
    "NormModule",
    "Runner",
    "SentenceFiles",
    "SentenceModules",
    "WeightFormat",
    "list_models",
    "model_role",
    "models_dir",
    "open_checkpoint",
    "pull",
    "read_gguf_header",
    "read_sentence_files",
]
