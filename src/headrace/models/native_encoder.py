"""An encoder whose forward pass is one call to the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headrace.kernels.native import EncoderPass, EncoderShape, Matrix, NativeKernels
from headrace.models.encoder import EncoderBlueprint
from headrace.models.encoder_spec import EncoderSpec, Residual
from headrace.models.parameters import Parameter, Role, WeightReader, by_layer
from headrace.models.relative_bias import bias_by_distance
from headrace.models.rotary import Rotary
from headrace.models.row_memory import RowMemory
from headrace.models.weight_storage import WeightStorage, precision_of, store_matrix, store_table

_RELATIVE_BIAS = "relative_bias"
_CPU = torch.device("cpu")


class NativeEncoder:
    """Runs an encoder on the CPU with `kernels`; implements `Encoder`, for every spec.

    The results of a sequence do not depend on its neighbours or on the number of threads, bit for bit. What `forward`
    returns lies in memory that its next call uses again.
    """

    def __init__(self, blueprint: EncoderBlueprint, kernels: NativeKernels, storage: WeightStorage) -> None:
        self.spec = blueprint.spec
        self.blueprint = blueprint
        self._kernels = kernels
        self._storage = storage
        self._pass = _empty_pass(blueprint.spec, kernels)
        self._layer_matrices: list[Matrix] = []
        self._hidden = RowMemory(self.spec.hidden_size)

    @property
    def kernels(self) -> str:
        return self._kernels.name

    @property
    def precision(self) -> str:
        """Of the matrices of the layers."""
        return precision_of(self._layer_matrices)

    def load(self, weights: WeightReader) -> None:
        spec, parameters = self.spec, self.blueprint.parameters
        tables, _ = by_layer(
            filter(_is_table, parameters),
            spec.num_layers,
            lambda parameter: store_table(parameter.parts[0], weights, self._kernels, self._storage),
        )
        matrices, layer_matrices = by_layer(
            (parameter for parameter in parameters if parameter.role is Role.LINEAR),
            spec.num_layers,
            lambda parameter: [store_matrix(part, weights, self._kernels, self._storage) for part in parameter.parts],
        )
        vectors, layer_vectors = by_layer(
            (parameter for parameter in parameters if parameter.role is not Role.LINEAR and not _is_table(parameter)),
            spec.num_layers,
            lambda parameter: weights.tensor(parameter, torch.float32, _CPU),
        )
        [projection] = matrices.get("embedding_projection", [None])
        self._pass.set_embeddings(
            tokens=tables["token_embedding"],
            types=tables.get("type_embedding"),
            positions=tables.get("position_embedding"),
            norm=vectors["embedding_norm"],
            norm_bias=vectors.get("embedding_norm_bias"),
            projection=projection,
            projection_bias=vectors.get("embedding_projection_bias"),
        )
        if spec.residual is Residual.NORM_OF_INPUT:
            self._pass.set_final_norm(vectors["final_norm"], vectors.get("final_norm_bias"))
        if spec.relative_bias is not None:
            bias = bias_by_distance(vectors[_RELATIVE_BIAS], spec.relative_bias, spec.max_position)
            self._pass.set_distance_bias(bias)
        self._add_layers(layer_matrices, layer_vectors)

    def _add_layers(
        self, layer_matrices: list[dict[str, list[Matrix]]], layer_vectors: list[dict[str, Tensor]]
    ) -> None:
        ropes = list(dict.fromkeys(layer.rope for layer in self.spec.layers if layer.rope is not None))
        for rope in ropes:
            rotary = Rotary(rope, _CPU)
            angles = rotary.angles(torch.arange(self.spec.max_position))
            self._pass.add_rotation(angles.cos() * rotary.magnitude, angles.sin() * rotary.magnitude)
        for layer, matrices, vectors in zip(self.spec.layers, layer_matrices, layer_vectors, strict=True):
            [attention_out], [down] = matrices["attention_out"], matrices["down"]
            self._pass.add_layer(
                qkv=matrices["qkv"],
                attention_out=attention_out,
                up=matrices["up"],
                down=down,
                qkv_bias=vectors.get("qkv_bias"),
                attention_out_bias=vectors.get("attention_out_bias"),
                up_bias=vectors.get("up_bias"),
                down_bias=vectors.get("down_bias"),
                attention_norm=vectors.get("attention_norm"),
                attention_norm_bias=vectors.get("attention_norm_bias"),
                mlp_norm=vectors["mlp_norm"],
                mlp_norm_bias=vectors.get("mlp_norm_bias"),
                rotation=None if layer.rope is None else ropes.index(layer.rope),
                window=layer.window,
            )
            self._layer_matrices += [matrix for stacked in matrices.values() for matrix in stacked]

    def forward(self, token_ids: Tensor, token_type_ids: Tensor | None, lengths: Sequence[int]) -> Tensor:
        hidden = self._hidden.take(len(token_ids))
        starts = np.zeros(len(lengths) + 1, dtype=np.int64)
        np.cumsum(lengths, out=starts[1:])
        types = None if token_type_ids is None or not self.spec.type_vocab_size else token_type_ids.numpy()
        self._pass.forward(token_ids.numpy(), types, starts, hidden.numpy())
        return hidden


def _is_table(parameter: Parameter) -> bool:
    """Whether its rows are looked up by the library; those of a relative bias are spelled out before."""
    return parameter.role is Role.EMBEDDING and parameter.name != _RELATIVE_BIAS


def _empty_pass(spec: EncoderSpec, kernels: NativeKernels) -> EncoderPass:
    return kernels.encoder_pass(
        EncoderShape(
            hidden_size=spec.hidden_size,
            embedding_size=spec.embedding_size,
            intermediate_size=spec.intermediate_size,
            num_heads=spec.num_heads,
            head_dim=spec.head_dim,
            norm_eps=spec.norm_eps,
            activation=spec.function.value,
            gated=spec.gated,
            norm_of_sum=spec.residual is Residual.NORM_OF_SUM,
            position_offset=spec.position_offset,
        )
    )
