"""What is applied to the elements of a vector between two layers, or at its end."""

from __future__ import annotations

from enum import StrEnum

import torch
import torch.nn.functional as F
from torch import Tensor


class Function(StrEnum):
    GELU = "gelu"
    """With the error function."""
    GELU_TANH = "gelu_tanh"
    SILU = "silu"
    RELU = "relu"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    SOFTMAX = "softmax"
    """Over the last dimension."""
    IDENTITY = "identity"


def apply(function: Function, x: Tensor) -> Tensor:
    """`function` of `x`, as a new tensor unless it changes nothing."""
    match function:
        case Function.GELU:
            return F.gelu(x)
        case Function.GELU_TANH:
            return F.gelu(x, approximate="tanh")
        case Function.SILU:
            return F.silu(x)
        case Function.RELU:
            return F.relu(x)
        case Function.TANH:
            return torch.tanh(x)
        case Function.SIGMOID:
            return torch.sigmoid(x)
        case Function.SOFTMAX:
            return torch.softmax(x, dim=-1)
        case Function.IDENTITY:
            return x
