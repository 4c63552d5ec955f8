"""Loads the native library and gives it threads."""

from __future__ import annotations

import importlib
from dataclasses import asdict
from typing import Any

import torch
from torch import Tensor

from headrace.kernels.native import (
    CacheShape,
    DecoderShape,
    EncoderPass,
    EncoderShape,
    ForwardPass,
    Matrix,
    PagedCache,
    RowTable,
)

_MODULE = "headrace.kernels.cpu._native"


class NoNativeLibrary(Exception):
    """The library was not built for this installation, or does not load on this machine; the text says which."""


def load_cpu_kernels(threads: int) -> CpuKernels:
    """The library with `threads` threads. Raises `NoNativeLibrary`."""
    try:
        library = importlib.import_module(_MODULE)
    except ModuleNotFoundError:
        raise NoNativeLibrary("this installation was built without the native library") from None
    except ImportError as error:
        raise NoNativeLibrary(f"the native library does not load: {error}") from error
    return CpuKernels(library, threads)


class CpuKernels:
    """Implements `NativeKernels` with the compiled module `library` (see native/src/bindings.cpp).

    `isa` is one of its `isa_levels()`; None: the best.
    """

    def __init__(self, library: Any, threads: int, isa: str | None = None) -> None:
        self._library = library
        self._pool = library.Pool(threads, isa)

    @property
    def name(self) -> str:
        return f"native {self._pool.isa}"

    def matrix(self, kind: str, rows: Tensor, columns: int) -> Matrix:
        return self._library.Matrix(self._pool, kind, rows, columns)

    def quantize(self, kind: str, values: Tensor) -> Matrix:
        return self._library.Matrix.quantize(self._pool, kind, values)

    def row_table(self, kind: str, rows: Tensor, columns: int) -> RowTable:
        return self._library.RowTable(self._pool, kind, rows, columns)

    def forward_pass(self, shape: DecoderShape) -> ForwardPass:
        return self._library.Decoder(self._pool, **asdict(shape))

    def encoder_pass(self, shape: EncoderShape) -> EncoderPass:
        return self._library.Encoder(self._pool, **asdict(shape))

    def block_bytes(self, shape: CacheShape) -> int:
        return self._library.KvCache.block_bytes(**asdict(shape))

    def paged_cache(self, memory: Tensor, shape: CacheShape) -> PagedCache:
        return self._library.KvCache(memory, **asdict(shape))

    def draw(self, logits: Tensor, temperatures: Tensor, quantiles: Tensor) -> tuple[Tensor, Tensor]:
        tokens = torch.empty(len(logits), dtype=torch.int64)
        peaks = torch.empty(len(logits), dtype=torch.float32)
        self._library.draw(self._pool, logits, temperatures, quantiles, tokens, peaks)
        return tokens, peaks
