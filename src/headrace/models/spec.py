"""What a decoder looks like, as a value: enough to build it, nothing about where its weights are stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace.kernels.ops import AttentionRules


class Activation(StrEnum):
    """The gate of the feed-forward layer."""

    SILU = "silu"
    GELU_TANH = "gelu_tanh"


class NormPlacement(StrEnum):
    """Where a sublayer's norms are: on its input, on its output before the residual is added, or both."""

    INPUT = "input"
    OUTPUT = "output"
    BOTH = "both"


class QkNorm(StrEnum):
    """Whether queries and keys are normalised before they are rotated: each head by itself, or all heads together."""

    NONE = "none"
    HEAD = "head"
    FULL = "full"


@dataclass(frozen=True, slots=True)
class LinearScaling:
    """All frequencies divided by `factor`."""

    factor: float


@dataclass(frozen=True, slots=True)
class DynamicScaling:
    """NTK-aware: the base grows with the position once that is beyond `original_max_position`."""

    factor: float
    original_max_position: int


@dataclass(frozen=True, slots=True)
class Llama3Scaling:
    """Long wavelengths are divided by `factor`, short ones kept, those between interpolated."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position: int


@dataclass(frozen=True, slots=True)
class YarnScaling:
    """Interpolation by dimension; `attention_factor` multiplies cosine and sine."""

    factor: float
    original_max_position: int
    attention_factor: float
    beta_fast: float
    beta_slow: float
    truncate: bool


@dataclass(frozen=True, slots=True)
class FrequencyDivisors:
    """Each of the dim / 2 frequencies has its own divisor, as GGUF files store Llama 3's scaling."""

    divisors: tuple[float, ...]


RopeScaling = LinearScaling | DynamicScaling | Llama3Scaling | YarnScaling | FrequencyDivisors


@dataclass(frozen=True, slots=True)
class RopeSpec:
    """A rotary embedding of the first `dim` dimensions of each head, halves rotated against each other."""

    dim: int
    theta: float
    scaling: RopeScaling | None = None


@dataclass(frozen=True, slots=True)
class LayerSpec:
    """What may differ from layer to layer."""

    rope: RopeSpec
    attention: AttentionRules


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderSpec:
    """A decoder-only transformer. Sizes in elements; `max_position` is the longest sequence in tokens."""

    vocab_size: int
    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    max_position: int
    layers: tuple[LayerSpec, ...]
    norm_eps: float
    activation: Activation = Activation.SILU
    norm_placement: NormPlacement = NormPlacement.INPUT
    qk_norm: QkNorm = QkNorm.NONE
    qkv_bias: bool = False
    attention_out_bias: bool = False
    mlp_bias: bool = False
    tied_embeddings: bool = False
    embedding_scale: float = 1.0
    """Multiplies the embeddings, rounded to the model's dtype first."""
    logit_soft_cap: float | None = None

    @property
    def num_layers(self) -> int:
        return len(self.layers)
