"""Which tensors an encoder needs, and what a checkpoint calls them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from headrace.models.encoder_spec import EncoderSpec, Residual
from headrace.models.parameters import LAYER, Parameter, Part, Role


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderNames:
    """What a family calls its modules in a Hugging Face checkpoint, without the prefix of the base model.

    Those from `qkv` on are modules of a layer, below `layer` with its number.
    """

    token_embedding: str = "embeddings.word_embeddings"
    type_embedding: str = "embeddings.token_type_embeddings"
    position_embedding: str = "embeddings.position_embeddings"
    embedding_norm: str = "embeddings.LayerNorm"
    embedding_projection: str = "embeddings_project"
    relative_bias: str = "encoder.relative_attention_bias"
    final_norm: str = "final_norm"
    layer: str = "encoder.layer.{}."
    qkv: tuple[str, ...] = ("attention.self.query", "attention.self.key", "attention.self.value")
    attention_out: str = "attention.output.dense"
    attention_norm: str = "attention.output.LayerNorm"
    up: tuple[str, ...] = ("intermediate.dense",)
    """Of a gated layer the gate first; one module can hold both."""
    down: str = "output.dense"
    mlp_norm: str = "output.LayerNorm"


def encoder_parameters(spec: EncoderSpec, names: EncoderNames) -> tuple[Parameter, ...]:
    """Every parameter of the encoder; those of layer N are called `layers.N.<name>`.

    Outside the layers: `token_embedding`, `type_embedding`, `position_embedding` (matrices with a row for each token,
    type, position), `embedding_norm`, `embedding_projection`, `relative_bias` [buckets, heads], `final_norm`.
    In a layer: `qkv`, `attention_out`, `attention_norm`, `up` (of a gated layer [gate | up]), `down`, `mlp_norm`.
    Matrices are [out, in]. What the spec does without is not there; a bias has the name of its matrix or norm with
    `_bias` at its end.
    """
    return (*_ends(spec, names), *(p for layer in range(spec.num_layers) for p in _layer(spec, names, layer)))


def _ends(spec: EncoderSpec, names: EncoderNames) -> Iterator[Parameter]:
    width = spec.embedding_size
    yield _table("token_embedding", names.token_embedding, spec.vocab_size, width)
    if spec.type_vocab_size:
        yield _table("type_embedding", names.type_embedding, spec.type_vocab_size, width)
    if spec.position_rows:
        yield _table("position_embedding", names.position_embedding, spec.position_rows, width)
    yield from norm("embedding_norm", names.embedding_norm, width, bias=spec.norm_bias)
    if spec.embedding_size != spec.hidden_size:
        projection = (names.embedding_projection,)
        yield from matrix("embedding_projection", projection, (spec.hidden_size,), width, bias=True)
    if spec.relative_bias is not None:
        yield _table("relative_bias", names.relative_bias, spec.relative_bias.num_buckets, spec.num_heads)
    if spec.residual is Residual.NORM_OF_INPUT:
        yield from norm("final_norm", names.final_norm, spec.hidden_size, bias=spec.norm_bias)


def _layer(spec: EncoderSpec, names: EncoderNames, layer: int) -> Iterator[Parameter]:
    ours, theirs = f"{LAYER}{layer}.", names.layer.format(layer)
    hidden, heads = spec.hidden_size, spec.num_heads * spec.head_dim
    linears = (
        ("qkv", names.qkv, (heads,) * 3, hidden, spec.qkv_bias),
        ("attention_out", (names.attention_out,), (hidden,), heads, spec.attention_out_bias),
        ("up", names.up, (spec.intermediate_size,) * (2 if spec.gated else 1), hidden, spec.up_bias),
        ("down", (names.down,), (hidden,), spec.intermediate_size, spec.down_bias),
    )
    for name, modules, rows, columns, bias in linears:
        yield from matrix(ours + name, tuple(theirs + module for module in modules), rows, columns, bias=bias)
    if spec.layers[layer].attention_norm:
        yield from norm(ours + "attention_norm", theirs + names.attention_norm, hidden, bias=spec.norm_bias)
    yield from norm(ours + "mlp_norm", theirs + names.mlp_norm, hidden, bias=spec.norm_bias)


def matrix(
    name: str, modules: tuple[str, ...], rows: tuple[int, ...], columns: int, *, bias: bool
) -> Iterator[Parameter]:
    """The weight of a linear layer, and its bias. One module can hold the rows of all of them."""
    if len(modules) == 1:
        rows = (sum(rows),)
    sized = list(zip(modules, rows, strict=True))
    weights = tuple(Part(f"{module}.weight", (count, columns)) for module, count in sized)
    yield Parameter(name=name, role=Role.LINEAR, parts=weights)
    if bias:
        biases = tuple(Part(f"{module}.bias", (count,)) for module, count in sized)
        yield Parameter(name=f"{name}_bias", role=Role.BIAS, parts=biases)


def norm(name: str, module: str, size: int, *, bias: bool) -> Iterator[Parameter]:
    """The weight of a layer norm, and its bias."""
    yield Parameter(name=name, role=Role.NORM, parts=(Part(f"{module}.weight", (size,)),))
    if bias:
        yield Parameter(name=f"{name}_bias", role=Role.BIAS, parts=(Part(f"{module}.bias", (size,)),))


def _table(name: str, module: str, rows: int, columns: int) -> Parameter:
    return Parameter(name=name, role=Role.EMBEDDING, parts=(Part(f"{module}.weight", (rows, columns)),))
