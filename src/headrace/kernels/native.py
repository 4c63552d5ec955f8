"""What the native library does for a model, as types: it keeps the weights and runs the whole forward pass.

One call a step instead of one an operation, because on a CPU what happens between the operations costs as much as they
do: the library fuses them, and hands the work to its own threads. The meaning of each operation is still that of
`reference.py`. All arrays are C-contiguous, in memory of this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from numpy.typing import NDArray
from torch import Tensor

Array = Tensor | NDArray
"""Tensors for what is handed over once; numpy arrays in a step, because torch takes longer to hand one over."""

MATRIX_KINDS = ("f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q4_k", "q5_k", "q6_k")
"""How a matrix may be stored: the names of ggml's types in lower case, with rows laid out as in a GGUF file."""

GROUP = 32
"""Neighbouring elements of a row that share a scale in a matrix that the library quantises."""

BLOCK_SIZE_MULTIPLE = 16
"""What the size of a KV block must be a multiple of: keys are laid out in tiles of so many tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DecoderShape:
    """What is the same for all layers. `activation`: "silu" or "gelu_tanh"."""

    hidden_size: int
    intermediate_size: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    vocab_size: int
    norm_eps: float
    activation: str
    embedding_scale: float
    logit_soft_cap: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderShape:
    """What is the same for all layers of an encoder. `activation`: "gelu", "gelu_tanh", "silu" or "relu".

    `gated`: the rows of a layer's `up` are [gate | up]. `norm_of_sum`: a sublayer's norm is of the sum of its input and
    its output, else of its input. Position p has row `position_offset` + p of the table of positions.
    """

    hidden_size: int
    embedding_size: int
    intermediate_size: int
    num_heads: int
    head_dim: int
    norm_eps: float
    activation: str
    gated: bool
    norm_of_sum: bool
    position_offset: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheShape:
    """How keys and values are kept. `kind`: "f32", "f16", "bf16" or "i8" (with a float32 scale for each head's)."""

    kind: str
    block_size: int
    num_kv_heads: int
    head_dim: int


class Matrix(Protocol):
    """A weight matrix in the layout that the kernels read fastest, at the precision of its `kind`."""

    @property
    def kind(self) -> str: ...

    @property
    def nbytes(self) -> int: ...


class RowTable(Protocol):
    """Rows of floats that are looked up by number. Opaque."""


class PagedCache(Protocol):
    """The library's view of the memory of the KV cache, which it keeps alive. Opaque."""


class ForwardPass(Protocol):
    """A decoder's layers and what runs them. Built with `set_ends` and one `add_layer` a layer, in order."""

    def set_ends(self, embedding: Matrix, final_norm: Array, lm_head: Matrix | None) -> None:
        """`final_norm` float32 [hidden]; without an `lm_head`, the embedding takes its place."""
        ...

    def add_layer(
        self,
        *,
        qkv: list[Matrix],
        attention_out: Matrix,
        gate_up: list[Matrix],
        down: Matrix,
        qkv_bias: Array | None,
        attention_out_bias: Array | None,
        gate_up_bias: Array | None,
        down_bias: Array | None,
        attention_input_norm: Array | None,
        attention_output_norm: Array | None,
        mlp_input_norm: Array | None,
        mlp_output_norm: Array | None,
        qk_norm: Array | None,
        q_norm: Array | None,
        k_norm: Array | None,
        rotation: int,
        scale: float,
        window: int | None,
        soft_cap: float | None,
    ) -> None:
        """Matrices in lists are stacked along their rows. Biases and norms are float32; `qk_norm` is
        [heads + kv heads, head dim], the others are flat. `rotation` says which of `forward`'s angles are the layer's;
        the rest is as in `AttentionRules`.
        """
        ...

    def forward(
        self,
        token_ids: Array,
        angles: Sequence[Array],
        magnitudes: Sequence[float],
        slot_mapping: Array,
        block_tables: Array,
        context_lens: Array,
        query_start: Array,
        output_start: Array,
        kv: PagedCache,
        hidden: Array,
    ) -> None:
        """Run a batch as described by `AttentionBatch`, all of it int64; fill `hidden`, float32 [R, hidden].

        Of the tokens of sequence b, the last `output_start[b + 1] - output_start[b]` are asked for, R in all.
        `angles`: for each rotary embedding float32 [T, R / 2], in radians, R being the dimensions of a head that turn;
        its entry of `magnitudes` multiplies cosine and sine. Releases the GIL.
        """
        ...

    def logits(self, hidden: Array, logits: Array) -> None:
        """Fill `logits`, float32 [R, vocabulary], for the rows of `hidden`, float32 [R, hidden]."""
        ...


class EncoderPass(Protocol):
    """An encoder's layers and what runs them. Built with `set_embeddings`, `set_final_norm` where norms are of inputs,
    `set_distance_bias` and `add_rotation` where there are such, and then one `add_layer` a layer, in order."""

    def set_embeddings(
        self,
        *,
        tokens: RowTable,
        types: RowTable | None,
        positions: RowTable | None,
        norm: Array,
        norm_bias: Array | None,
        projection: Matrix | None,
        projection_bias: Array | None,
    ) -> None:
        """What is summed up and normalised; `projection` [hidden, embedding size] where these two differ."""
        ...

    def set_final_norm(self, norm: Array, norm_bias: Array | None) -> None:
        """Both float32 [hidden]."""
        ...

    def set_distance_bias(self, values: Array) -> None:
        """`values[head, k - q + N // 2]` is added to the score of key k and query q: float32 [heads, N], N odd."""
        ...

    def add_rotation(self, cosines: Array, sines: Array) -> None:
        """A rotary embedding, by position: float32 [positions, R / 2] each, R being the dimensions that turn."""
        ...

    def add_layer(
        self,
        *,
        qkv: list[Matrix],
        attention_out: Matrix,
        up: list[Matrix],
        down: Matrix,
        qkv_bias: Array | None,
        attention_out_bias: Array | None,
        up_bias: Array | None,
        down_bias: Array | None,
        attention_norm: Array | None,
        attention_norm_bias: Array | None,
        mlp_norm: Array,
        mlp_norm_bias: Array | None,
        rotation: int | None,
        window: int | None,
    ) -> None:
        """As in `ForwardPass`. `rotation`: the number of an `add_rotation`; None: none. `window`: as in
        `EncoderLayerSpec`."""
        ...

    def forward(self, token_ids: Array, token_type_ids: Array | None, starts: Array, hidden: Array) -> None:
        """Run sequences that lie end to end; fill `hidden`, float32 [T, hidden].

        `token_ids` and `token_type_ids` (None: all of type 0) are int64 [T]; `starts`, int64 [sequences + 1], says
        where each sequence begins and the last one ends. Releases the GIL.
        """
        ...


class NativeKernels(Protocol):
    """The library, with the threads it runs on. A row's results never depend on the others', on how its sequence was
    cut into chunks, or on the number of threads, bit for bit."""

    @property
    def name(self) -> str:
        """Which kernels run on this machine: "native avx2"."""
        ...

    def matrix(self, kind: str, rows: Tensor, columns: int) -> Matrix:
        """Take over the `rows` (uint8 [rows, bytes of a row]) of a matrix stored as `kind`; they are copied."""
        ...

    def quantize(self, kind: str, values: Tensor) -> Matrix:
        """Round float32 `values` [rows, columns] to `kind`: "q8_0" or "q4_1", where columns must be a multiple of
        `GROUP`, or "i16", where they must be even."""
        ...

    def row_table(self, kind: str, rows: Tensor, columns: int) -> RowTable:
        """Copy the `rows` (uint8 [rows, bytes of a row]) of a matrix stored as `kind`: "f32", "f16" or "bf16"."""
        ...

    def forward_pass(self, shape: DecoderShape) -> ForwardPass:
        """A decoder's forward pass without layers."""
        ...

    def encoder_pass(self, shape: EncoderShape) -> EncoderPass:
        """The same for an encoder."""
        ...

    def block_bytes(self, shape: CacheShape) -> int:
        """Bytes of one layer's keys, or values, in a block."""
        ...

    def paged_cache(self, memory: Tensor, shape: CacheShape) -> PagedCache:
        """A view on `memory`, uint8 [blocks, layers, 2 (keys, values), bytes of a block]."""
        ...

    def draw(self, logits: Tensor, temperatures: Tensor, quantiles: Tensor) -> tuple[Tensor, Tensor]:
        """A token for each row: the one at its quantile (float64 [R], in [0, 1)) of softmax(logits / temperature).

        `logits` float32 [R, V] stay as they are; `temperatures` float32 [R], above 0. Returns the tokens, int64 [R],
        and the highest logits, float32 [R]: NaN if one is. A row whose highest logit is not finite gets token 0.
        """
        ...
