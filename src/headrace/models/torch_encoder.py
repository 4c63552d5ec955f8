"""The forward pass of an encoder, operation by operation, for every variation that an `EncoderSpec` can express."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from headrace.kernels.ops import Ops, Rotation, WholeAttention, WholeAttentionRules
from headrace.models.decoder import name_of
from headrace.models.encoder import EncoderBlueprint
from headrace.models.encoder_spec import Residual
from headrace.models.functions import apply
from headrace.models.parameters import Parameter, Role, WeightReader, by_layer
from headrace.models.relative_bias import bias_by_distance
from headrace.models.rotary import Rotary


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerWeights:
    """One layer's tensors; what the spec does without is None. Norms are float32, matrices packed by the ops."""

    qkv: Tensor
    attention_out: Tensor
    up: Tensor
    down: Tensor
    mlp_norm: Tensor
    attention_norm: Tensor | None = None
    qkv_bias: Tensor | None = None
    attention_out_bias: Tensor | None = None
    up_bias: Tensor | None = None
    down_bias: Tensor | None = None
    attention_norm_bias: Tensor | None = None
    mlp_norm_bias: Tensor | None = None


class TorchEncoder:
    """Runs an encoder operation by operation; implements `Encoder`. It holds nothing between calls but its weights."""

    kernels = "reference"

    def __init__(self, blueprint: EncoderBlueprint, ops: Ops, *, dtype: torch.dtype, device: torch.device) -> None:
        spec = blueprint.spec
        self.spec = spec
        self.blueprint = blueprint
        self.dtype = dtype
        self.device = device
        self._ops = ops
        self._rotaries = {layer.rope: Rotary(layer.rope, device) for layer in spec.layers if layer.rope is not None}
        self._windows = {layer.window for layer in spec.layers}
        self._bias: Tensor | None = None
        self._ends: dict[str, Tensor] = {}
        self._layers: tuple[LayerWeights, ...] = ()

    @property
    def precision(self) -> str:
        return name_of(self.dtype)

    def load(self, weights: WeightReader) -> None:
        def read(parameter: Parameter) -> Tensor:
            is_norm = parameter.role is Role.NORM or parameter.name.endswith("norm_bias")
            tensor = weights.tensor(parameter, torch.float32 if is_norm else self.dtype, self.device)
            return self._ops.pack_weight(tensor) if parameter.role is Role.LINEAR else tensor

        self._ends, layers = by_layer(self.blueprint.parameters, self.spec.num_layers, read)
        self._layers = tuple(LayerWeights(**fields) for fields in layers)
        if self.spec.relative_bias is not None:
            table = self._ends.pop("relative_bias")
            bias = bias_by_distance(table, self.spec.relative_bias, self.spec.max_position)
            self._bias = bias.to(self.device, self.dtype)

    @torch.inference_mode()
    def forward(self, token_ids: Tensor, token_type_ids: Tensor | None, lengths: Sequence[int]) -> Tensor:
        spec = self.spec
        positions = self._positions(lengths)
        rotations = {rope: rotary.rotation(positions, self.dtype) for rope, rotary in self._rotaries.items()}
        attentions = {window: self._attention(lengths, window) for window in self._windows}
        x = self._embed(token_ids, token_type_ids, positions)
        for layer, weights in zip(spec.layers, self._layers, strict=True):
            rotation = rotations[layer.rope] if layer.rope is not None else None
            attention = attentions[layer.window]
            if spec.residual is Residual.NORM_OF_SUM:
                x = self._attention_norm(weights, x + self._attend(weights, x, rotation, attention))
                x = self._mlp_norm(weights, x + self._feed_forward(weights, x))
            else:
                x = x + self._attend(weights, self._attention_norm(weights, x), rotation, attention)
                x = x + self._feed_forward(weights, self._mlp_norm(weights, x))
        if spec.residual is Residual.NORM_OF_INPUT:
            x = self._end_norm("final_norm", x)
        return x.float()

    def _positions(self, lengths: Sequence[int]) -> Tensor:
        """int64 [T]: each token's position in its sequence."""
        counts = torch.tensor(lengths, device=self.device)
        starts = (counts.cumsum(0) - counts).repeat_interleave(counts)
        return torch.arange(len(starts), device=self.device) - starts

    def _attention(self, lengths: Sequence[int], window: int | None) -> WholeAttention:
        rules = WholeAttentionRules(self.spec.head_dim**-0.5, window, self._bias)
        return self._ops.whole_attention(lengths, rules)

    def _embed(self, token_ids: Tensor, token_type_ids: Tensor | None, positions: Tensor) -> Tensor:
        spec, ends, ops = self.spec, self._ends, self._ops
        x = ops.embedding(token_ids, ends["token_embedding"])
        if spec.type_vocab_size:
            types = ends["type_embedding"]
            x += types[0] if token_type_ids is None else ops.embedding(token_type_ids, types)
        if spec.position_rows:
            x += ops.embedding(positions + spec.position_offset, ends["position_embedding"])
        x = self._end_norm("embedding_norm", x)
        if spec.embedding_size != spec.hidden_size:
            x = ops.linear(x, ends["embedding_projection"], ends["embedding_projection_bias"])
        return x

    def _attend(self, weights: LayerWeights, x: Tensor, rotation: Rotation | None, attention: WholeAttention) -> Tensor:
        heads = self._ops.linear(x, weights.qkv, weights.qkv_bias).unflatten(-1, (-1, self.spec.head_dim))
        if rotation is not None:
            self._ops.rotate(heads[:, : 2 * self.spec.num_heads], rotation)
        queries, keys, values = heads.chunk(3, dim=1)
        return self._ops.linear(attention(queries, keys, values), weights.attention_out, weights.attention_out_bias)

    def _feed_forward(self, weights: LayerWeights, x: Tensor) -> Tensor:
        up = self._ops.linear(x, weights.up, weights.up_bias)
        if self.spec.gated:
            gate, up = up.chunk(2, dim=-1)
            up = apply(self.spec.function, gate) * up
        else:
            up = apply(self.spec.function, up)
        return self._ops.linear(up, weights.down, weights.down_bias)

    def _attention_norm(self, weights: LayerWeights, x: Tensor) -> Tensor:
        if weights.attention_norm is None:
            return x
        return self._ops.layer_norm(x, weights.attention_norm, weights.attention_norm_bias, self.spec.norm_eps)

    def _mlp_norm(self, weights: LayerWeights, x: Tensor) -> Tensor:
        return self._ops.layer_norm(x, weights.mlp_norm, weights.mlp_norm_bias, self.spec.norm_eps)

    def _end_norm(self, name: str, x: Tensor) -> Tensor:
        return self._ops.layer_norm(x, self._ends[name], self._ends.get(f"{name}_bias"), self.spec.norm_eps)
