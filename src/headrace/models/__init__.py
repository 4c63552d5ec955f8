"""Models: one decoder, parameterised by a spec; one small file for each family that it covers."""

from headrace.models.decoder import DecoderModel
from headrace.models.registry import build_model
from headrace.models.spec import DecoderSpec

__all__ = ["DecoderModel", "DecoderSpec", "build_model"]
