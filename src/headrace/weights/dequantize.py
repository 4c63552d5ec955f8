"""GGUF's block formats back to float32, exactly as ggml defines them.

Formats: `block_q4_0` and its kin in ggml/src/ggml-common.h of github.com/ggml-org/llama.cpp, arithmetic as in
`dequantize_row_*` of ggml-quants.c, operation by operation, so that results are equal to the last bit. A block begins
with or ends in float16 scales; what follows in the comments is one block's bytes in order.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_CHUNK_ELEMENTS = 1 << 22
"""Elements decoded at a time: bounds the temporary arrays to about this many bytes each."""


def dequantize(kind: str, data: Tensor, out: Tensor) -> None:
    """Decode `data`, uint8 [bytes], of ggml type `kind` into `out`, float32 and contiguous.

    `data` holds as many whole blocks as `out` has elements for. Raises `KeyError` for a type not in `SUPPORTED`.
    """
    decode, block_elements, block_bytes = _FORMATS[kind]
    blocks = data.view(-1, block_bytes)
    values = out.view(-1, block_elements)
    step = _CHUNK_ELEMENTS // block_elements
    for first in range(0, len(blocks), step):
        decode(blocks[first : first + step], values[first : first + step])


def _halves(blocks: Tensor, first_byte: int, count: int = 1) -> Tensor:
    """float16 numbers of each block as float32 [n, count]."""
    return blocks[:, first_byte : first_byte + 2 * count].contiguous().view(torch.float16).float()


def _nibbles(packed: Tensor) -> Tensor:
    """The low nibbles of each row's bytes, then the high ones: [n, 2 * bytes]."""
    return torch.cat((packed & 0x0F, packed >> 4), dim=1)


def _fields(packed: Tensor, bits: int) -> Tensor:
    """Split the bytes [..., n] of the last dimension in fields of `bits` bits, lowest first: [..., 8 / bits, n]."""
    mask = (1 << bits) - 1
    return torch.stack([(packed >> shift) & mask for shift in range(0, 8, bits)], dim=-2)


def _fifth_bits(blocks: Tensor, first_byte: int) -> Tensor:
    """32 bits, one an element, as 0 or 16: [n, 32]."""
    shifts = torch.arange(8, dtype=torch.uint8)
    bits = (blocks[:, first_byte : first_byte + 4, None] >> shifts) & 1
    return bits.flatten(1) << 4


def _float32(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks.view(torch.float32))


def _float16(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks.view(torch.float16))


def _bfloat16(blocks: Tensor, out: Tensor) -> None:
    out.copy_(blocks.view(torch.bfloat16))


def _q4_0(blocks: Tensor, out: Tensor) -> None:
    # d, 16 bytes of nibbles
    out.copy_(_nibbles(blocks[:, 2:])).sub_(8).mul_(_halves(blocks, 0))


def _q4_1(blocks: Tensor, out: Tensor) -> None:
    # d, m, 16 bytes of nibbles
    scale, minimum = _halves(blocks, 0, 2).split(1, dim=1)
    out.copy_(_nibbles(blocks[:, 4:])).mul_(scale).add_(minimum)


def _q5_0(blocks: Tensor, out: Tensor) -> None:
    # d, 4 bytes of fifth bits, 16 bytes of nibbles
    out.copy_(_nibbles(blocks[:, 6:]) | _fifth_bits(blocks, 2)).sub_(16).mul_(_halves(blocks, 0))


def _q5_1(blocks: Tensor, out: Tensor) -> None:
    # d, m, 4 bytes of fifth bits, 16 bytes of nibbles
    scale, minimum = _halves(blocks, 0, 2).split(1, dim=1)
    out.copy_(_nibbles(blocks[:, 8:]) | _fifth_bits(blocks, 4)).mul_(scale).add_(minimum)


def _q8_0(blocks: Tensor, out: Tensor) -> None:
    # d, 32 signed bytes
    out.copy_(blocks[:, 2:].view(torch.int8)).mul_(_halves(blocks, 0))


def _q2_k(blocks: Tensor, out: Tensor) -> None:
    # 16 bytes: nibbles of scale and minimum; 64 bytes of 2-bit quants; d, dmin
    packed = blocks[:, :16]
    scale = _halves(blocks, 80) * (packed & 0x0F)
    minimum = _halves(blocks, 82) * (packed >> 4)
    quants = _fields(blocks[:, 16:80].unflatten(1, (2, 32)), 2)
    out.copy_(quants.flatten(1))
    out.view(-1, 16, 16).mul_(scale[..., None]).sub_(minimum[..., None])


def _q3_k(blocks: Tensor, out: Tensor) -> None:
    # 32 bytes of third bits; 64 bytes of 2-bit quants; 12 bytes of 6-bit scales (low nibbles, then high pairs); d
    scales = _nibbles(blocks[:, 96:104]) | (_fields(blocks[:, 104:108], 2).flatten(1) << 4)
    scale = _halves(blocks, 108) * (scales.to(torch.int8) - 32)
    quants = _fields(blocks[:, 32:96].unflatten(1, (2, 32)), 2).flatten(1)
    third_bits = _fields(blocks[:, :32], 1).flatten(1)
    # A set bit means the quant is as it stands, a clear one that 4 is taken off.
    out.copy_(quants | (third_bits << 2)).sub_(4)
    out.view(-1, 16, 16).mul_(scale[..., None])


def _scales_and_minima(packed: Tensor) -> tuple[Tensor, Tensor]:
    """The 12 bytes [n, 12] in which Q4_K and Q5_K keep eight 6-bit scales and minima: each uint8 [n, 8]."""
    scale, minimum, rest = packed.split(4, dim=1)
    scales = torch.cat((scale & 0x3F, (rest & 0x0F) | ((scale >> 2) & 0x30)), dim=1)
    minima = torch.cat((minimum & 0x3F, (rest >> 4) | ((minimum >> 2) & 0x30)), dim=1)
    return scales, minima


def _scale_k(blocks: Tensor, quants: Tensor, out: Tensor) -> None:
    """Q4_K and Q5_K once their quants, uint8 [n, 256], are put together: eight runs of 32 with a scale and minimum."""
    scales, minima = _scales_and_minima(blocks[:, 4:16])
    scale, minimum = _halves(blocks, 0) * scales, _halves(blocks, 2) * minima
    out.copy_(quants)
    out.view(-1, 8, 32).mul_(scale[..., None]).sub_(minimum[..., None])


def _q4_k(blocks: Tensor, out: Tensor) -> None:
    # d, dmin, 12 bytes of scales and minima, 128 bytes of nibbles in runs of 32
    _scale_k(blocks, _fields(blocks[:, 16:].unflatten(1, (4, 32)), 4).flatten(1), out)


def _q5_k(blocks: Tensor, out: Tensor) -> None:
    # d, dmin, 12 bytes of scales and minima, 32 bytes of fifth bits, 128 bytes of nibbles in runs of 32
    fifth_bits = _fields(blocks[:, 16:48], 1).flatten(1) << 4
    _scale_k(blocks, _fields(blocks[:, 48:].unflatten(1, (4, 32)), 4).flatten(1) | fifth_bits, out)


def _q6_k(blocks: Tensor, out: Tensor) -> None:
    # 128 bytes of nibbles in runs of 64, 64 bytes of upper pairs in runs of 32, 16 signed scales, d
    low = _fields(blocks[:, :128].unflatten(1, (2, 64)), 4).flatten(1)
    high = _fields(blocks[:, 128:192].unflatten(1, (2, 32)), 2).flatten(1)
    scale = _halves(blocks, 208) * blocks[:, 192:208].view(torch.int8)
    out.copy_(low | (high << 4)).sub_(32)
    out.view(-1, 16, 16).mul_(scale[..., None])


_FORMATS: dict[str, tuple[Callable[[Tensor, Tensor], None], int, int]] = {
    "F32": (_float32, 1, 4),
    "F16": (_float16, 1, 2),
    "BF16": (_bfloat16, 1, 2),
    "Q4_0": (_q4_0, 32, 18),
    "Q4_1": (_q4_1, 32, 20),
    "Q5_0": (_q5_0, 32, 22),
    "Q5_1": (_q5_1, 32, 24),
    "Q8_0": (_q8_0, 32, 34),
    "Q2_K": (_q2_k, 256, 84),
    "Q3_K": (_q3_k, 256, 110),
    "Q4_K": (_q4_k, 256, 144),
    "Q5_K": (_q5_k, 256, 176),
    "Q6_K": (_q6_k, 256, 210),
}
"""By ggml type: how to decode, elements of a block, bytes of a block."""

SUPPORTED = tuple(_FORMATS)
