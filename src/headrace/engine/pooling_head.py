"""The layers that sentence-transformers puts after a model's hidden states, and what scores go through in the end."""

from __future__ import annotations

from pathlib import Path

import torch

from headrace.core.errors import BadCheckpoint
from headrace.hub import DenseModule, NormModule, SentenceFiles, SentenceModules
from headrace.models.config import Config
from headrace.models.functions import Function
from headrace.models.head import DenseLayer, Head, HeadLayer, NormLayer
from headrace.weights import Contents, read_folder

_TORCH = "torch.nn.modules."
_FUNCTIONS = {
    "Identity": Function.IDENTITY,
    "Sigmoid": Function.SIGMOID,
    "Softmax": Function.SOFTMAX,
    "Tanh": Function.TANH,
    "ReLU": Function.RELU,
    "GELU": Function.GELU,
    "SiLU": Function.SILU,
}
"""By the names of torch's classes."""
_NORM_EPS = 1e-5
"""Of the layer norms of sentence-transformers: torch's default."""


def load_sentence_head(modules: SentenceModules, in_features: int, device: torch.device) -> Head:
    """The layers of `modules`, each read from a folder of its own. Raises `BadCheckpoint`."""
    head = Head(_sentence_layers(modules, in_features), in_features, device)
    for module, layer in zip(modules.layers, head.layers, strict=True):
        _load_layer(head, layer, module.path)
    return head


def _load_layer(head: Head, layer: HeadLayer, folder: Path) -> None:
    contents = Contents(
        parameters=tuple(layer.parameters()),
        is_spare=lambda name: False,
        name_of=lambda name: f"{folder.name}.{name}",  # the layers of all folders have the same names there
    )
    read_folder(folder, contents, lambda weights: head.load(weights, [layer]))


def _sentence_layers(modules: SentenceModules, width: int) -> tuple[HeadLayer, ...]:
    layers: list[HeadLayer] = []
    for module in modules.layers:
        expected = module.in_features if isinstance(module, DenseModule) else module.size
        if expected != width:
            raise BadCheckpoint(f"{module.path}: takes vectors of {expected} values and gets some of {width}")
        if isinstance(module, NormModule):
            layers.append(NormLayer(module=f"{module.path.name}.norm", size=width, eps=_NORM_EPS))
            continue
        layers.append(
            DenseLayer(
                module=f"{module.path.name}.linear",
                in_features=width,
                out_features=module.out_features,
                bias=module.bias,
                function=_function(module.function, str(module.path / "config.json")),
            )
        )
        width = module.out_features
    return tuple(layers)


def score_function(config: Config, files: SentenceFiles, num_labels: int) -> Function:
    """What a classifier's scores go through by default. Raises `BadCheckpoint` for a function that is not known."""
    match config.get("problem_type"):
        case "regression":
            return Function.IDENTITY
        case "multi_label_classification":
            return Function.SIGMOID
        case "single_label_classification":
            return _by_count(num_labels)
    own = config.get("sentence_transformers") or {}
    named = (own.get("activation_fn"), config.get("sbert_ce_default_activation_function"), files.activation)
    name = next((name for name in named if name), "")
    if name.startswith(_TORCH):
        return _function(name.rpartition(".")[2], "config.json")
    return _by_count(num_labels)


def _by_count(num_labels: int) -> Function:
    return Function.SIGMOID if num_labels == 1 else Function.SOFTMAX


def _function(name: str, where: str) -> Function:
    if name not in _FUNCTIONS:
        raise BadCheckpoint(f"{where}: activation {name!r} is not supported; supported: {', '.join(_FUNCTIONS)}")
    return _FUNCTIONS[name]
