"""A decoder whose forward pass is one call to the native library."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from headrace.core.errors import ConfigError
from headrace.kernels.native import (
    BLOCK_SIZE_MULTIPLE,
    CacheShape,
    DecoderShape,
    ForwardPass,
    Matrix,
    NativeKernels,
    PagedCache,
)
from headrace.kernels.ops import AttentionBatch
from headrace.models.decoder import Blueprint, KvLayout
from headrace.models.parameters import Parameter, Role, WeightReader, by_layer
from headrace.models.rotary import Rotary
from headrace.models.row_memory import RowMemory
from headrace.models.weight_storage import FLOAT_KINDS, WeightStorage, precision_of, store_matrix

_VECTORS = (
    *("qkv_bias", "attention_out_bias", "gate_up_bias", "down_bias"),
    *("attention_input_norm", "attention_output_norm", "mlp_input_norm", "mlp_output_norm"),
    *("qk_norm", "q_norm", "k_norm"),
)
_CPU = torch.device("cpu")


class NativeDecoder:
    """Runs a decoder on the CPU with `kernels`; implements `Decoder`.

    What `forward` and `logits` return lies in memory that each of them uses again at its next call: fresh memory of a
    batch's logits would cost as much as computing them.
    """

    def __init__(self, blueprint: Blueprint, kernels: NativeKernels, storage: WeightStorage) -> None:
        self.spec = blueprint.spec
        self.blueprint = blueprint
        self._kernels = kernels
        self._storage = storage
        self._pass = _empty_pass(blueprint, kernels)
        self._layer_matrices: list[Matrix] = []
        ropes = list(dict.fromkeys(layer.rope for layer in self.spec.layers))
        self._rotation_of_layer = [ropes.index(layer.rope) for layer in self.spec.layers]
        self._rotaries = [Rotary(rope, _CPU) for rope in ropes]
        self._magnitudes = [rotary.magnitude for rotary in self._rotaries]
        self._hidden = RowMemory(self.spec.hidden_size)
        self._logits = RowMemory(self.spec.vocab_size)

    @property
    def kernels(self) -> str:
        return self._kernels.name

    @property
    def precision(self) -> str:
        """Of the matrices of the layers: the embeddings are often kept at another one."""
        return precision_of(self._layer_matrices)

    def load(self, weights: WeightReader) -> None:
        parameters = self.blueprint.parameters
        matrices, layer_matrices = by_layer(
            (parameter for parameter in parameters if parameter.role in (Role.EMBEDDING, Role.LINEAR)),
            self.spec.num_layers,
            lambda parameter: self._matrices(parameter, weights),
        )
        vectors, layer_vectors = by_layer(
            (parameter for parameter in parameters if parameter.role in (Role.NORM, Role.BIAS)),
            self.spec.num_layers,
            lambda parameter: weights.tensor(parameter, torch.float32, _CPU),
        )
        [embedding], [lm_head] = matrices["embedding"], matrices.get("lm_head", [None])
        self._pass.set_ends(embedding, vectors["final_norm"], lm_head)
        for at, layer in enumerate(self.spec.layers):
            [attention_out], [down] = layer_matrices[at]["attention_out"], layer_matrices[at]["down"]
            self._pass.add_layer(
                qkv=layer_matrices[at]["qkv"],
                attention_out=attention_out,
                gate_up=layer_matrices[at]["gate_up"],
                down=down,
                **{name: layer_vectors[at].get(name) for name in _VECTORS},
                rotation=self._rotation_of_layer[at],
                scale=layer.attention.scale,
                window=layer.attention.window,
                soft_cap=layer.attention.soft_cap,
            )
            self._layer_matrices += [matrix for matrices in layer_matrices[at].values() for matrix in matrices]

    def kv_layout(self, block_size: int, dtype: str) -> KvLayout:
        if block_size % BLOCK_SIZE_MULTIPLE:
            raise ConfigError(
                f"--block-size {block_size}: the native kernels need a multiple of {BLOCK_SIZE_MULTIPLE} "
                "(16, 32, 64, 128 or 256). Smaller blocks work with --kernels reference."
            )
        if dtype == "auto":
            dtype = "float32" if self.precision == "float32" else "float16"
        shape = self._cache_shape(block_size, dtype)
        block_bytes = self._kernels.block_bytes(shape)
        if dtype == "int8":
            scales = 4 * shape.num_kv_heads * block_size
            return KvLayout(
                dtype=dtype,
                block_size=block_size,
                block_bytes=block_bytes,
                float_dtype=torch.float32,
                floats_from=block_bytes - scales,
            )
        return KvLayout(dtype=dtype, block_size=block_size, block_bytes=block_bytes, float_dtype=FLOAT_KINDS[dtype][1])

    def kv_view(self, memory: Tensor, layout: KvLayout) -> PagedCache:
        return self._kernels.paged_cache(memory, self._cache_shape(layout.block_size, layout.dtype))

    def forward(
        self, token_ids: Tensor, batch: AttentionBatch, kv: PagedCache, output_start: Sequence[int] | None = None
    ) -> Tensor:
        output_start = output_start or batch.query_start
        hidden = self._hidden.take(output_start[-1])
        self._pass.forward(
            token_ids.numpy(),
            [rotary.angles(batch.positions).numpy() for rotary in self._rotaries],
            self._magnitudes,
            batch.slot_mapping.numpy(),
            batch.block_tables.numpy(),
            batch.context_lens.numpy(),
            np.array(batch.query_start, dtype=np.int64),
            np.array(output_start, dtype=np.int64),
            kv,
            hidden.numpy(),
        )
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        logits = self._logits.take(len(hidden))
        self._pass.logits(hidden.numpy(), logits.numpy())
        return logits

    def _cache_shape(self, block_size: int, dtype: str) -> CacheShape:
        kind = "i8" if dtype == "int8" else FLOAT_KINDS[dtype][0]
        return CacheShape(
            kind=kind, block_size=block_size, num_kv_heads=self.spec.num_kv_heads, head_dim=self.spec.head_dim
        )

    def _matrices(self, parameter: Parameter, weights: WeightReader) -> list[Matrix]:
        is_end = parameter.name in ("embedding", "lm_head")
        return [store_matrix(part, weights, self._kernels, self._storage, is_end=is_end) for part in parameter.parts]


def _empty_pass(blueprint: Blueprint, kernels: NativeKernels) -> ForwardPass:
    spec = blueprint.spec
    return kernels.forward_pass(
        DecoderShape(
            hidden_size=spec.hidden_size,
            intermediate_size=spec.intermediate_size,
            num_heads=spec.num_heads,
            num_kv_heads=spec.num_kv_heads,
            head_dim=spec.head_dim,
            vocab_size=spec.vocab_size,
            norm_eps=spec.norm_eps,
            activation=spec.activation.value,
            embedding_scale=spec.embedding_scale,
            logit_soft_cap=spec.logit_soft_cap,
        )
    )
