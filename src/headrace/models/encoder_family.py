"""What a family of encoders has to say: how its config reads, what its checkpoints call their tensors, its heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from headrace.core.errors import BadCheckpoint
from headrace.core.pooling import PoolingMode
from headrace.models.config import Config, required
from headrace.models.encoder_parameters import EncoderNames
from headrace.models.encoder_spec import EncoderSpec
from headrace.models.functions import Function
from headrace.models.head import DenseLayer, HeadSpec

_FUNCTIONS = {
    "gelu": Function.GELU,
    "gelu_new": Function.GELU_TANH,
    "gelu_pytorch_tanh": Function.GELU_TANH,
    "silu": Function.SILU,
    "swish": Function.SILU,
    "relu": Function.RELU,
}

HeadReader = Callable[[Config, EncoderSpec], HeadSpec]


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderFamily:
    """`stems` are what the names of its architectures begin with: "Bert" of "BertModel".

    `prefix` stands before the names of the tensors in checkpoints that have a head. The two heads are those of
    `…ForSequenceClassification` and `…ForTokenClassification`.
    """

    stems: tuple[str, ...]
    spec: Callable[[Config], EncoderSpec]
    prefix: str
    sequence_head: HeadReader
    token_head: HeadReader
    names: EncoderNames = field(default_factory=EncoderNames)


def function(config: Config, key: str = "hidden_act") -> Function:
    """Raises `BadCheckpoint` naming one that is not supported."""
    name = config.get(key) or "gelu"
    if name not in _FUNCTIONS:
        raise BadCheckpoint(f"config.json: {key} {name!r} is not supported; supported: {', '.join(_FUNCTIONS)}")
    return _FUNCTIONS[name]


def labels(config: Config) -> tuple[str, ...]:
    """The names of a classifier's classes in order, "" where the config does not name them."""
    names: Mapping[Any, str] = config.get("id2label") or {}
    count = config.get("num_labels") or len(names) or 2
    return tuple(str(names.get(str(index), names.get(index, ""))) for index in range(count))


def encoder_sizes(config: Config) -> dict[str, Any]:
    """The fields of an `EncoderSpec` that BERT and its descendants spell the same way."""
    hidden, heads = required(config, "hidden_size"), required(config, "num_attention_heads")
    if hidden % heads:
        raise BadCheckpoint(f"config.json: hidden_size {hidden} is not a multiple of num_attention_heads {heads}")
    return {
        "vocab_size": required(config, "vocab_size"),
        "hidden_size": hidden,
        "embedding_size": hidden,
        "intermediate_size": required(config, "intermediate_size"),
        "num_heads": heads,
        "head_dim": hidden // heads,
        "function": function(config),
    }


def dense_then_classifier(dense: str, classifier: str, activation: Function) -> HeadReader:
    """A head on the first token: a layer of the model's own width, then the scores."""

    def head(config: Config, spec: EncoderSpec) -> HeadSpec:
        hidden = spec.hidden_size
        first = DenseLayer(module=dense, in_features=hidden, out_features=hidden, function=activation)
        return HeadSpec(PoolingMode.CLS, (first, _scores(config, spec, classifier)))

    return head


def classifier_alone(config: Config, spec: EncoderSpec) -> HeadSpec:
    """A head of nothing but the scores."""
    return HeadSpec(PoolingMode.CLS, (_scores(config, spec, "classifier"),))


def _scores(config: Config, spec: EncoderSpec, module: str) -> DenseLayer:
    return DenseLayer(module=module, in_features=spec.hidden_size, out_features=len(labels(config)))
