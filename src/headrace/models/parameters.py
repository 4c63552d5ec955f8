"""Which tensors a decoder needs, and from which tensors of a checkpoint each is put together."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from headrace.models.spec import DecoderSpec, NormPlacement, QkNorm


@dataclass(frozen=True, slots=True)
class Part:
    """Checkpoint tensor `name` of shape `shape`, and the rows of a parameter that it fills.

    Its own first dimension are the rows; with `copies`, it is a single row and is repeated so often.
    """

    name: str
    shape: tuple[int, ...]
    copies: int | None = None

    @property
    def rows_shape(self) -> tuple[int, ...]:
        return self.shape if self.copies is None else (self.copies, *self.shape)


class Role(StrEnum):
    """What a parameter is for, which decides how it is kept."""

    EMBEDDING = "embedding"
    LINEAR = "linear"
    """A matrix [out, in] that rows are multiplied with."""
    BIAS = "bias"
    NORM = "norm"
    """Kept in float32; the family's `norm_offset` applies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameter:
    """One tensor of a decoder: `parts` stacked along the first dimension."""

    name: str
    role: Role
    parts: tuple[Part, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        shapes = [part.rows_shape for part in self.parts]
        return (sum(shape[0] for shape in shapes), *shapes[0][1:])


class WeightReader(Protocol):
    """A checkpoint, as a decoder reads its parameters: each part once."""

    def kind(self, part: Part) -> str:
        """How the checkpoint keeps `part`: a ggml type in lower case ("f32", "q4_k", …)."""
        ...

    def stored(self, part: Part) -> Tensor:
        """The bytes of a matrix as they are, uint8 [rows, bytes of a row], possibly of a file mapped into memory."""
        ...

    def values(self, part: Part, dtype: torch.dtype) -> Tensor:
        """A matrix [rows, columns] as floats, rounded once if it must."""
        ...

    def tensor(self, parameter: Parameter, dtype: torch.dtype, device: torch.device) -> Tensor:
        """The whole parameter as floats; of a norm, what to multiply with."""
        ...


Made = TypeVar("Made")

LAYER = "layers."


def by_layer(
    parameters: Iterable[Parameter], num_layers: int, make: Callable[[Parameter], Made]
) -> tuple[dict[str, Made], list[dict[str, Made]]]:
    """What `make` makes of each parameter, by name: of those outside the layers, and of those of each layer."""
    ends: dict[str, Made] = {}
    layers: list[dict[str, Made]] = [{} for _ in range(num_layers)]
    for parameter in parameters:
        layer, _, field = parameter.name.removeprefix(LAYER).partition(".")
        target, name = (layers[int(layer)], field) if field else (ends, parameter.name)
        target[name] = make(parameter)
    return ends, layers


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerNames:
    """What a family calls the modules of a layer in a Hugging Face checkpoint, below `model.layers.N.`."""

    qkv: tuple[str, ...] = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj")
    attention_out: str = "self_attn.o_proj"
    gate_up: tuple[str, ...] = ("mlp.gate_proj", "mlp.up_proj")
    down: str = "mlp.down_proj"
    attention_input_norm: str = "input_layernorm"
    attention_output_norm: str = "post_attention_layernorm"
    mlp_input_norm: str = "post_attention_layernorm"
    mlp_output_norm: str = "post_feedforward_layernorm"
    q_norm: str = "self_attn.q_norm"
    k_norm: str = "self_attn.k_norm"


EMBEDDING = "model.embed_tokens.weight"
FINAL_NORM = "model.norm.weight"
LM_HEAD = "lm_head.weight"


def decoder_parameters(spec: DecoderSpec, names: LayerNames) -> tuple[Parameter, ...]:
    """Every parameter of the decoder; those of layer N are called `layers.N.<name>`."""
    hidden, vocab = spec.hidden_size, spec.vocab_size
    parameters = [
        Parameter(name="embedding", role=Role.EMBEDDING, parts=(Part(EMBEDDING, (vocab, hidden)),)),
        _norm("final_norm", FINAL_NORM, hidden),
    ]
    if not spec.tied_embeddings:
        parameters.append(_matrix("lm_head", (LM_HEAD,), (vocab,), hidden))
    for layer in range(spec.num_layers):
        parameters += _layer_parameters(spec, names, f"{LAYER}{layer}.", f"model.layers.{layer}.")
    return tuple(parameters)


def _layer_parameters(spec: DecoderSpec, names: LayerNames, ours: str, theirs: str) -> Iterator[Parameter]:
    hidden, query, key = spec.hidden_size, spec.num_heads * spec.head_dim, spec.num_kv_heads * spec.head_dim
    linears = (
        ("qkv", names.qkv, (query, key, key), hidden, spec.qkv_bias),
        ("attention_out", (names.attention_out,), (hidden,), query, spec.attention_out_bias),
        ("gate_up", names.gate_up, (spec.intermediate_size,) * 2, hidden, spec.mlp_bias),
        ("down", (names.down,), (hidden,), spec.intermediate_size, spec.mlp_bias),
    )
    for name, modules, rows, columns, bias in linears:
        if len(modules) == 1:
            rows = (sum(rows),)
        yield _matrix(ours + name, tuple(f"{theirs}{module}.weight" for module in modules), rows, columns)
        if bias:
            biases = (_vector(f"{theirs}{module}.bias", size) for module, size in zip(modules, rows, strict=True))
            yield Parameter(name=f"{ours}{name}_bias", role=Role.BIAS, parts=tuple(biases))
    if spec.norm_placement is not NormPlacement.OUTPUT:
        yield _norm(ours + "attention_input_norm", f"{theirs}{names.attention_input_norm}.weight", hidden)
        yield _norm(ours + "mlp_input_norm", f"{theirs}{names.mlp_input_norm}.weight", hidden)
    if spec.norm_placement is not NormPlacement.INPUT:
        yield _norm(ours + "attention_output_norm", f"{theirs}{names.attention_output_norm}.weight", hidden)
        yield _norm(ours + "mlp_output_norm", f"{theirs}{names.mlp_output_norm}.weight", hidden)
    q_norm, k_norm = f"{theirs}{names.q_norm}.weight", f"{theirs}{names.k_norm}.weight"
    if spec.qk_norm is QkNorm.HEAD:
        shape = (spec.head_dim,)
        parts = (Part(q_norm, shape, spec.num_heads), Part(k_norm, shape, spec.num_kv_heads))
        yield Parameter(name=ours + "qk_norm", role=Role.NORM, parts=parts)
    elif spec.qk_norm is QkNorm.FULL:
        yield _norm(ours + "q_norm", q_norm, query)
        yield _norm(ours + "k_norm", k_norm, key)


def _matrix(name: str, sources: tuple[str, ...], rows: tuple[int, ...], columns: int) -> Parameter:
    parts = (Part(source, (count, columns)) for source, count in zip(sources, rows, strict=True))
    return Parameter(name=name, role=Role.LINEAR, parts=tuple(parts))


def _norm(name: str, source: str, size: int) -> Parameter:
    return Parameter(name=name, role=Role.NORM, parts=(_vector(source, size),))


def _vector(source: str, size: int) -> Part:
    return Part(source, (size,))
