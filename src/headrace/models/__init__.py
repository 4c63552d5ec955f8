"""Models: one decoder and one encoder, each parameterised by a spec; one small file for each family they cover."""

from headrace.models.decoder import Blueprint, Decoder, KvLayout
from headrace.models.encoder import Encoder, EncoderBlueprint
from headrace.models.encoder_spec import EncoderSpec
from headrace.models.native_decoder import NativeDecoder
from headrace.models.native_encoder import NativeEncoder
from headrace.models.pooling_registry import PoolingBlueprint, read_pooling_blueprint
from headrace.models.registry import read_blueprint
from headrace.models.spec import DecoderSpec
from headrace.models.torch_decoder import TorchDecoder
from headrace.models.torch_encoder import TorchEncoder
from headrace.models.weight_storage import WeightStorage

__all__ = [
    "Blueprint",
    "Decoder",
    "DecoderSpec",
    "Encoder",
    "EncoderBlueprint",
    "EncoderSpec",
    "KvLayout",
    "NativeDecoder",
    "NativeEncoder",
    "PoolingBlueprint",
    "TorchDecoder",
    "TorchEncoder",
    "WeightStorage",
    "read_blueprint",
    "read_pooling_blueprint",
]
