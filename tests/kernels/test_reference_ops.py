"""Each operation against its definition, written out."""

from __future__ import annotations

import math

import pytest
import torch

from headrace.kernels import LayerKV, Rotation, select_ops

OPS = select_ops(torch.device("cpu"))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("rows", [0, 1, 3, 40])
def test_linear(rows, packed, bias, dtype):
    x, weight, offset = torch.randn(rows, 24), torch.randn(17, 24), torch.randn(17)
    given = OPS.pack_weight(weight.to(dtype)) if packed else weight.to(dtype)

    result = OPS.linear(x.to(dtype), given, offset.to(dtype) if bias else None)

    expected = x.double() @ weight.double().T + (offset.double() if bias else 0)
    tolerance = 1e-5 if dtype is torch.float32 else 0.2
    assert result.dtype is dtype
    torch.testing.assert_close(result.double(), expected, atol=tolerance, rtol=tolerance)


def test_rms_norm_counts_eps_inside_the_root():
    x, weight = torch.randn(3, 8) * 1e-3, torch.randn(8)
    expected = x / torch.sqrt(x.pow(2).mean(-1, keepdim=True) + 1e-5) * weight

    torch.testing.assert_close(OPS.rms_norm(x, weight, 1e-5), expected)


def test_rms_norm_with_a_weight_for_each_head_leaves_its_input_alone():
    x, weight = torch.randn(3, 5, 8), torch.randn(5, 8)
    before = x.clone()

    normed = OPS.rms_norm(x, weight, 1e-6)

    assert torch.equal(x, before)
    for head in range(5):
        torch.testing.assert_close(normed[:, head], OPS.rms_norm(x[:, head], weight[head], 1e-6))


def test_rms_norm_of_half_precision_multiplies_before_rounding():
    x, weight = torch.randn(4, 64).bfloat16(), 1 + torch.randn(64) * 1e-3
    exact = x.double() / torch.sqrt(x.double().pow(2).mean(-1, keepdim=True) + 1e-6) * weight.double()

    assert torch.equal(OPS.rms_norm(x, weight, 1e-6), exact.bfloat16())


def test_add_rms_norm_updates_the_residual():
    x, residual, weight = torch.randn(3, 8), torch.randn(3, 8), torch.randn(8)
    total = x + residual

    normed = OPS.add_rms_norm(x, residual, weight, 1e-6)

    assert torch.equal(residual, total)
    assert torch.equal(normed, OPS.rms_norm(total, weight, 1e-6))


def test_gates_take_the_first_half_as_gate():
    x = torch.randn(3, 10)
    gate, up = x[:, :5].double(), x[:, 5:].double()
    tanh_form = 0.5 * gate * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))

    torch.testing.assert_close(OPS.silu_mul(x).double(), gate / (1 + torch.exp(-gate)) * up, atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(OPS.gelu_tanh_mul(x).double(), tanh_form * up, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("rotary_dim", [8, 4])
def test_rotate_and_store(rotary_dim):
    tokens, query_heads, kv_heads, dim = 5, 4, 2, 8
    qkv = torch.randn(tokens, query_heads + 2 * kv_heads, dim)
    qk, values = qkv.clone().split((query_heads + kv_heads, kv_heads), dim=1)
    angles = torch.rand(tokens, rotary_dim // 2) * 6
    rotation = Rotation(
        cos=torch.cat((angles.cos(), angles.cos()), -1)[:, None],
        sin=torch.cat((-angles.sin(), angles.sin()), -1)[:, None],
    )
    kv = LayerKV(torch.zeros(3, 4, kv_heads, dim), torch.zeros(3, 4, kv_heads, dim))
    slots = torch.tensor([4, 11, 7, 5, 8])

    OPS.rotate_and_store(qk, values, rotation, kv, slots)

    original = qkv[:, : query_heads + kv_heads]
    half = rotary_dim // 2
    pairs = torch.complex(original[..., :half], original[..., half:rotary_dim])
    turned = pairs * torch.polar(torch.ones_like(angles), angles)[:, None]
    expected = torch.cat((turned.real, turned.imag, original[..., rotary_dim:]), -1)
    torch.testing.assert_close(qk, expected)
    assert torch.equal(kv.keys.flatten(0, 1)[slots], qk[:, query_heads:])
    assert torch.equal(kv.values.flatten(0, 1)[slots], qkv[:, -kv_heads:])
    untouched = [slot for slot in range(12) if slot not in slots.tolist()]
    assert not kv.keys.flatten(0, 1)[untouched].any()
    assert not kv.values.flatten(0, 1)[untouched].any()


def test_soft_cap():
    logits = torch.tensor([-100.0, -1.0, 0.0, 2.0, 100.0])
    expected = 5 * torch.tanh(logits / 5)

    torch.testing.assert_close(OPS.soft_cap(logits.clone(), 5.0), expected)
