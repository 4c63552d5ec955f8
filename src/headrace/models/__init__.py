"""Models: one decoder, parameterised by a spec; one small file for each family that it covers."""

from headrace.models.decoder import Blueprint, Decoder, KvLayout
from headrace.models.native_decoder import NativeDecoder, WeightStorage
from headrace.models.registry import read_blueprint
from headrace.models.spec import DecoderSpec
from headrace.models.torch_decoder import TorchDecoder

__all__ = [
    "Blueprint",
    "Decoder",
    "DecoderSpec",
    "KvLayout",
    "NativeDecoder",
    "TorchDecoder",
    "WeightStorage",
    "read_blueprint",
]
