"""Rotary position embeddings: by which angle each pair of dimensions is turned at each position.

Angles are computed from the positions of each step rather than looked up: that is a handful of operations a step, and
no table for the longest context has to be kept.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from headrace.kernels.ops import Rotation
from headrace.models.spec import DynamicScaling, FrequencyDivisors, LinearScaling, Llama3Scaling, RopeSpec, YarnScaling


class Rotary:
    """The rotations of one `RopeSpec`. `magnitude` multiplies cosine and sine."""

    def __init__(self, spec: RopeSpec, device: torch.device) -> None:
        self.magnitude = spec.scaling.attention_factor if isinstance(spec.scaling, YarnScaling) else 1.0
        self._spec = spec
        self._frequencies = _inverse_frequencies(spec).to(device)

    def angles(self, positions: Tensor) -> Tensor:
        """float32 [T, dim / 2], in radians, for tokens at `positions`, int64 [T]."""
        scaling = self._spec.scaling
        steps = positions.to(torch.float32)[:, None]
        if isinstance(scaling, DynamicScaling):
            return steps * self._dynamic_frequencies(positions, scaling)
        return steps * self._frequencies

    def rotation(self, positions: Tensor, dtype: torch.dtype) -> Rotation:
        """The same as cosines and sines."""
        angles = self.angles(positions)
        cos, sin = angles.cos().mul_(self.magnitude), angles.sin().mul_(self.magnitude)
        return Rotation(
            cos=torch.cat((cos, cos), dim=-1).to(dtype)[:, None],
            sin=torch.cat((-sin, sin), dim=-1).to(dtype)[:, None],
        )

    def _dynamic_frequencies(self, positions: Tensor, scaling: DynamicScaling) -> Tensor:
        """float32 [T, dim / 2], by the NTK-aware rule with the sequence ending at each token.

        So a token's rotation depends on its position alone and not on how the sequence was cut into steps;
        token-by-token decoding of transformers' `dynamic` type gives the same.
        """
        dim = self._spec.dim
        lengths = (positions + 1).clamp(min=scaling.original_max_position).to(torch.float64)
        stretch = scaling.factor * lengths / scaling.original_max_position - (scaling.factor - 1)
        bases = self._spec.theta * stretch ** (dim / (dim - 2))
        return (1.0 / bases[:, None] ** _exponents(dim, torch.float64).to(positions.device)).to(torch.float32)


def _exponents(dim: int, dtype: torch.dtype) -> Tensor:
    return torch.arange(0, dim, 2, dtype=dtype) / dim


def _inverse_frequencies(spec: RopeSpec) -> Tensor:
    """float32 [dim / 2]: radians per position. RoFormer, arXiv 2104.09864, equation 15, and the scalings' sources."""
    frequencies = 1.0 / spec.theta ** _exponents(spec.dim, torch.float32)
    match spec.scaling:
        case LinearScaling(factor):
            return frequencies / factor
        case Llama3Scaling():
            return _llama3(frequencies, spec.scaling)
        case YarnScaling():
            return _yarn(frequencies, spec, spec.scaling)
        case FrequencyDivisors(divisors):
            return frequencies / torch.tensor(divisors, dtype=torch.float32)
    return frequencies


def _llama3(frequencies: Tensor, scaling: Llama3Scaling) -> Tensor:
    """Llama 3.1's `apply_scaling` (github.com/meta-llama/llama-models, models/llama3/model.py).

    The share of the unscaled frequency rises from 0 to 1 as the turns within the original context go from
    `low_freq_factor` to `high_freq_factor`.
    """
    turns = scaling.original_max_position * frequencies / (2 * math.pi)
    kept = (turns - scaling.low_freq_factor) / (scaling.high_freq_factor - scaling.low_freq_factor)
    kept = kept.clamp(0.0, 1.0)
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def _yarn(frequencies: Tensor, spec: RopeSpec, scaling: YarnScaling) -> Tensor:
    """NTK-by-parts of YaRN, arXiv 2309.00071, section 3.2: a linear ramp over the dimensions between two bounds."""

    def dimension(turns: float) -> float:
        """The dimension that makes so many turns within the original context."""
        wavelengths = scaling.original_max_position / (turns * 2 * math.pi)
        return spec.dim * math.log(wavelengths) / (2 * math.log(spec.theta))

    low, high = dimension(scaling.beta_fast), dimension(scaling.beta_slow)
    if scaling.truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, spec.dim - 1)
    width = max(high - low, 0.001)
    interpolated = ((torch.arange(spec.dim // 2, dtype=torch.float32) - low) / width).clamp(0.0, 1.0)
    return interpolated * frequencies / scaling.factor + (1 - interpolated) * frequencies
