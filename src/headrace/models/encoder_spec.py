"""What an encoder looks like, as a value: enough to build it, nothing about where its weights are stored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from headrace.models.functions import Function
from headrace.models.spec import RopeSpec


class Residual(StrEnum):
    """Where a sublayer's norm is: on its input, or on the sum of its input and its output."""

    NORM_OF_INPUT = "norm_of_input"
    """What passes by is never normalised, so that one norm more follows the last layer."""
    NORM_OF_SUM = "norm_of_sum"


@dataclass(frozen=True, slots=True)
class RelativeBias:
    """A number for each head that is added to the attention scores, looked up by how far the key is from the query.

    Distances fall into `num_buckets`: half of them for keys after the query. Of either half, the first half are single
    distances, the others grow logarithmically up to `max_distance`.
    """

    num_buckets: int
    max_distance: int


@dataclass(frozen=True, slots=True)
class EncoderLayerSpec:
    """What may differ from layer to layer.

    A token sees all tokens of its sequence or, with a `window`, those at most so many positions away, on either side.
    Without an `attention_norm`, attention reads its input as it is (a first layer whose input is normalised already).
    """

    rope: RopeSpec | None = None
    window: int | None = None
    attention_norm: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderSpec:
    """A transformer that reads a whole sequence at once. Sizes in elements; `max_position` in tokens.

    The embedding of a token is the sum of its row of the token table, of the table of its type (where `type_vocab_size`
    is not 0; a token without a type has type 0) and of that of its position (where `position_rows` is not 0: position p
    has row `position_offset` + p). The sum is normalised and then, where `embedding_size` is not `hidden_size`,
    multiplied with a matrix.
    Attention scores are `query · key / sqrt(head_dim)`, plus the bias by distance where there is a `relative_bias`.
    `function` is GELU, GELU_TANH, SILU or RELU. `gated`: the feed-forward layer is `down(function(gate(x)) * up(x))`,
    else `down(function(up(x)))`. All norms are layer norms.
    """

    vocab_size: int
    hidden_size: int
    embedding_size: int
    intermediate_size: int
    num_heads: int
    head_dim: int
    max_position: int
    layers: tuple[EncoderLayerSpec, ...]
    norm_eps: float
    residual: Residual = Residual.NORM_OF_SUM
    function: Function = Function.GELU
    gated: bool = False
    type_vocab_size: int = 0
    position_rows: int = 0
    position_offset: int = 0
    relative_bias: RelativeBias | None = None
    norm_bias: bool = True
    qkv_bias: bool = True
    attention_out_bias: bool = True
    up_bias: bool = True
    down_bias: bool = True

    @property
    def num_layers(self) -> int:
        return len(self.layers)
