"""What every operation means, in plain torch. Runs on any device, in float32, bfloat16 and float16."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from headrace.kernels.ops import Attention, AttentionBatch, AttentionRules, LayerKV, Rotation, WholeAttentionRules
from headrace.kernels.paged_attention import PagedAttention
from headrace.kernels.whole_attention import WholeAttention

_PACKED_FOR_ROWS = 32
"""The batch size told to oneDNN when it packs a weight; its layout for this one is fastest for all (measured)."""


class ReferenceOps:
    """The `Ops` of a device for which there are no kernels of our own."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # torch sends float32 products on a CPU to MKL, whose matrix-vector product reaches half the memory bandwidth
        # of oneDNN's on AMD processors; oneDNN's own layout gains as much again for small batches.
        self._onednn = device.type == "cpu" and torch.backends.mkldnn.is_available()

    def pack_weight(self, weight: Tensor) -> Tensor:
        if self._onednn and weight.dtype is torch.float32:
            return torch.ops.mkldnn._reorder_linear_weight(weight, _PACKED_FOR_ROWS)
        return weight

    def embedding(self, token_ids: Tensor, table: Tensor) -> Tensor:
        return table.index_select(0, token_ids)

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        if self._onednn and x.dtype is torch.float32:
            return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
        return F.linear(x, weight, bias)

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        return F.rms_norm(x.float(), x.shape[-1:], None, eps).mul_(weight).to(x.dtype)

    def add_rms_norm(self, x: Tensor, residual: Tensor, weight: Tensor, eps: float) -> Tensor:
        return self.rms_norm(residual.add_(x), weight, eps)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, eps: float) -> Tensor:
        return F.layer_norm(x.float(), x.shape[-1:], weight, bias, eps).to(x.dtype)

    def silu_mul(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return F.silu(gate).mul_(up)

    def gelu_tanh_mul(self, x: Tensor) -> Tensor:
        gate, up = x.chunk(2, dim=-1)
        return F.gelu(gate, approximate="tanh").mul_(up)

    def rotate_and_store(self, qk: Tensor, values: Tensor, rotation: Rotation, kv: LayerKV, slots: Tensor) -> None:
        self.rotate(qk, rotation)
        keys = qk[:, -values.shape[1] :]
        block_size = kv.keys.shape[1]
        where = (slots // block_size, slots % block_size)
        kv.keys[where] = keys
        kv.values[where] = values

    def rotate(self, qk: Tensor, rotation: Rotation) -> None:
        rotary_dim = rotation.cos.shape[-1]
        rotated = qk[..., :rotary_dim]
        swapped = rotated.roll(rotary_dim // 2, dims=-1)
        rotated.mul_(rotation.cos).addcmul_(swapped, rotation.sin)

    def attention(self, batch: AttentionBatch, rules: AttentionRules, block_size: int) -> Attention:
        return PagedAttention(batch, rules, block_size)

    def whole_attention(self, lengths: Sequence[int], rules: WholeAttentionRules) -> WholeAttention:
        return WholeAttention(lengths, rules, self._device)

    def soft_cap(self, logits: Tensor, cap: float) -> Tensor:
        return logits.div_(cap).tanh_().mul_(cap)
