"""What stands between a model's hidden states and what a caller gets: a few small layers on vectors, in float32."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.core.pooling import PoolingMode
from headrace.models.encoder_parameters import matrix, norm
from headrace.models.functions import Function, apply
from headrace.models.parameters import Parameter, WeightReader


@dataclass(frozen=True, slots=True, kw_only=True)
class DenseLayer:
    """`function(x @ weight.T + bias)`; `module` is what the checkpoint calls it."""

    module: str
    in_features: int
    out_features: int
    bias: bool = True
    function: Function = Function.IDENTITY

    def parameters(self) -> Iterator[Parameter]:
        return matrix(self.module, (self.module,), (self.out_features,), self.in_features, bias=self.bias)


@dataclass(frozen=True, slots=True, kw_only=True)
class NormLayer:
    """A layer norm."""

    module: str
    size: int
    eps: float
    bias: bool = True

    def parameters(self) -> Iterator[Parameter]:
        return norm(self.module, self.module, self.size, bias=self.bias)


HeadLayer = DenseLayer | NormLayer


@dataclass(frozen=True, slots=True)
class HeadSpec:
    """How a model's hidden states become one vector, and the layers that follow."""

    mode: PoolingMode
    layers: tuple[HeadLayer, ...] = ()


class Head:
    """Layers, one after another, `in_features` wide at the first of them."""

    def __init__(self, layers: tuple[HeadLayer, ...], in_features: int, device: torch.device) -> None:
        self.layers = layers
        self.out_features = in_features
        for layer in layers:
            if isinstance(layer, DenseLayer):
                self.out_features = layer.out_features
        self._device = device
        self._weights: dict[str, Tensor] = {}

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        return tuple(parameter for layer in self.layers for parameter in layer.parameters())

    def load(self, weights: WeightReader, layers: Sequence[HeadLayer] | None = None) -> None:
        """Read the parameters of `layers`, some of the head's; None: of all."""
        for layer in self.layers if layers is None else layers:
            for parameter in layer.parameters():
                self._weights[parameter.name] = weights.tensor(parameter, torch.float32, self._device)

    def __call__(self, x: Tensor) -> Tensor:
        """float32 [R, out_features] for rows `x`, float32 [R, in_features]."""
        for layer in self.layers:
            weight, bias = self._weights[layer.module], self._weights.get(f"{layer.module}_bias")
            match layer:
                case DenseLayer():
                    x = apply(layer.function, F.linear(x, weight, bias))
                case NormLayer():
                    x = F.layer_norm(x, (layer.size,), weight, bias, layer.eps)
        return x
