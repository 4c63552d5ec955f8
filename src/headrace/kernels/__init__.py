"""The operations of the forward pass: what they are, what they mean, and who implements them on which device."""

from headrace.kernels.ops import Attention, AttentionBatch, AttentionRules, LayerKV, Ops, Rotation
from headrace.kernels.select import select_ops

__all__ = ["Attention", "AttentionBatch", "AttentionRules", "LayerKV", "Ops", "Rotation", "select_ops"]
