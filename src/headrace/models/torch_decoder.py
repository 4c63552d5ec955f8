"""The forward pass of a decoder, operation by operation, for every variation that a `DecoderSpec` can express."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor

from headrace.core.errors import ConfigError
from headrace.kernels.ops import Attention, AttentionBatch, LayerKV, Ops, Rotation
from headrace.models.decoder import Blueprint, KvLayout, name_of
from headrace.models.parameters import Parameter, Role, WeightReader, by_layer
from headrace.models.rotary import Rotary
from headrace.models.spec import Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer's tensors; what the spec does without is None. Norms are float32, matrices packed by the ops."""

    qkv: Tensor
    attention_out: Tensor
    gate_up: Tensor
    down: Tensor
    qkv_bias: Tensor | None = None
    attention_out_bias: Tensor | None = None
    gate_up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    attention_input_norm: Tensor | None = None
    attention_output_norm: Tensor | None = None
    mlp_input_norm: Tensor | None = None
    mlp_output_norm: Tensor | None = None
    qk_norm: Tensor | None = None
    """[num_heads + num_kv_heads, head_dim]: each head by itself."""
    q_norm: Tensor | None = None
    """[num_heads * head_dim]: all query heads together; `k_norm` likewise."""
    k_norm: Tensor | None = None


class TorchDecoder:
    """Runs a decoder operation by operation; implements `Decoder`. What an operation is, `ops` says.

    It holds nothing between calls but its weights.
    """

    kernels = "reference"

    def __init__(self, blueprint: Blueprint, ops: Ops, *, dtype: torch.dtype, device: torch.device) -> None:
        spec = blueprint.spec
        self.spec = spec
        self.blueprint = blueprint
        self.dtype = dtype
        self.device = device
        self._ops = ops
        self._gate = {Activation.SILU: ops.silu_mul, Activation.GELU_TANH: ops.gelu_tanh_mul}[spec.activation]
        self._rotaries = {layer.rope: Rotary(layer.rope, device) for layer in spec.layers}
        self._attention_rules = {layer.attention for layer in spec.layers}
        self._embedding_scale = torch.tensor(spec.embedding_scale, dtype=dtype, device=device)
        self._layers: tuple[LayerWeights, ...] = ()

    @property
    def precision(self) -> str:
        return name_of(self.dtype)

    def load(self, weights: WeightReader) -> None:
        def read(parameter: Parameter) -> Tensor:
            dtype = torch.float32 if parameter.role is Role.NORM else self.dtype
            tensor = weights.tensor(parameter, dtype, self.device)
            return self._ops.pack_weight(tensor) if parameter.role is Role.LINEAR else tensor

        ends, layers = by_layer(self.blueprint.parameters, self.spec.num_layers, read)
        self._layers = tuple(LayerWeights(**fields) for fields in layers)
        self._embedding = ends["embedding"]
        self._final_norm = ends["final_norm"]
        self._lm_head = self._ops.pack_weight(self._embedding) if self.spec.tied_embeddings else ends["lm_head"]

    def kv_layout(self, block_size: int, dtype: str) -> KvLayout:
        if dtype not in ("auto", self.precision):
            raise ConfigError(
                f"--kv-cache-dtype {dtype}: the reference kernels keep keys and values in the model's dtype, "
                f"{self.precision}. Only the native kernels convert them."
            )
        block_bytes = block_size * self.spec.num_kv_heads * self.spec.head_dim * self.dtype.itemsize
        return KvLayout(dtype=self.precision, block_size=block_size, block_bytes=block_bytes, float_dtype=self.dtype)

    def kv_view(self, memory: Tensor, layout: KvLayout) -> list[LayerKV]:
        shape = (layout.block_size, self.spec.num_kv_heads, self.spec.head_dim)
        layers = memory.view(self.dtype).unflatten(-1, shape).unbind(1)
        return [LayerKV(keys=layer[:, 0], values=layer[:, 1]) for layer in layers]

    @torch.inference_mode()
    def forward(
        self,
        token_ids: Tensor,
        batch: AttentionBatch,
        kv: Sequence[LayerKV],
        output_start: Sequence[int] | None = None,
    ) -> Tensor:
        ops = self._ops
        block_size = kv[0].keys.shape[1]
        rotations = {rope: rotary.rotation(batch.positions, self.dtype) for rope, rotary in self._rotaries.items()}
        attentions = {rules: ops.attention(batch, rules, block_size) for rules in self._attention_rules}
        residual = ops.embedding(token_ids, self._embedding)
        if self.spec.embedding_scale != 1.0:
            residual.mul_(self._embedding_scale)
        branch: Tensor | None = None
        for layer, weights, layer_kv in zip(self.spec.layers, self._layers, kv, strict=True):
            x = self._enter(branch, residual, weights.attention_input_norm)
            branch = self._attend(
                weights, x, rotations[layer.rope], attentions[layer.attention], layer_kv, batch.slot_mapping
            )
            branch = self._leave(branch, weights.attention_output_norm)
            x = self._enter(branch, residual, weights.mlp_input_norm)
            branch = ops.linear(x, weights.gate_up, weights.gate_up_bias)
            branch = ops.linear(self._gate(branch), weights.down, weights.down_bias)
            branch = self._leave(branch, weights.mlp_output_norm)
        if output_start is not None and output_start[-1] < len(token_ids):
            outputs = _outputs(batch.query_start, output_start).to(self.device)
            branch, residual = None if branch is None else branch[outputs], residual[outputs]
        return self._enter(branch, residual, self._final_norm)

    @torch.inference_mode()
    def logits(self, hidden: Tensor) -> Tensor:
        logits = self._ops.linear(hidden, self._lm_head).float()
        if self.spec.logit_soft_cap is not None:
            logits = self._ops.soft_cap(logits, self.spec.logit_soft_cap)
        return logits

    def _attend(
        self, weights: LayerWeights, x: Tensor, rotation: Rotation, attention: Attention, kv: LayerKV, slots: Tensor
    ) -> Tensor:
        spec, ops = self.spec, self._ops
        heads = ops.linear(x, weights.qkv, weights.qkv_bias).unflatten(-1, (-1, spec.head_dim))
        qk, values = heads.split((spec.num_heads + spec.num_kv_heads, spec.num_kv_heads), dim=1)
        if weights.qk_norm is not None:
            qk = ops.rms_norm(qk, weights.qk_norm, spec.norm_eps)
        elif weights.q_norm is not None and weights.k_norm is not None:
            queries, keys = qk.flatten(1).split((weights.q_norm.shape[0], weights.k_norm.shape[0]), dim=1)
            queries = ops.rms_norm(queries, weights.q_norm, spec.norm_eps)
            keys = ops.rms_norm(keys, weights.k_norm, spec.norm_eps)
            qk = torch.cat((queries, keys), dim=1).view_as(qk)
        ops.rotate_and_store(qk, values, rotation, kv, slots)
        attended = attention(qk[:, : spec.num_heads], kv)
        return ops.linear(attended, weights.attention_out, weights.attention_out_bias)

    def _enter(self, branch: Tensor | None, residual: Tensor, norm: Tensor | None) -> Tensor:
        """Add the last sublayer's output to the residual stream, in place, and return the next one's input."""
        if norm is None:
            return residual if branch is None else residual.add_(branch)
        if branch is None:
            return self._ops.rms_norm(residual, norm, self.spec.norm_eps)
        return self._ops.add_rms_norm(branch, residual, norm, self.spec.norm_eps)

    def _leave(self, branch: Tensor, norm: Tensor | None) -> Tensor:
        return branch if norm is None else self._ops.rms_norm(branch, norm, self.spec.norm_eps)


def _outputs(query_start: Sequence[int], output_start: Sequence[int]) -> Tensor:
    """Indices, int64 [R], of the tokens that are asked for: of each sequence the last ones."""
    counts = [end - start for start, end in pairwise(output_start)]
    indices = [index for end, count in zip(query_start[1:], counts, strict=True) for index in range(end - count, end)]
    return torch.tensor(indices, dtype=torch.int64)
