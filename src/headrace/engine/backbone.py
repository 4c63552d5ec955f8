"""What makes hidden states of whole sequences: an encoder, or a decoder with memory for one step."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, chain, pairwise
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from headrace.core.pooling import PoolingRequest
from headrace.engine.batch import lay_out, to_device
from headrace.engine.kv_cache import KvCache
from headrace.models.decoder import Decoder
from headrace.models.encoder import Encoder


class Backbone(Protocol):
    """A model up to its last hidden states. Between two calls it holds nothing that matters."""

    def run(self, requests: Sequence[PoolingRequest]) -> Tensor:
        """The hidden states of the requests' tokens end to end, float32 [T, hidden], until the next call. Requests of
        one token come first.
        """
        ...

    def scrub(self) -> None:
        """Leave nothing behind that could make later steps fail, after one whose results were not finite or that
        raised.
        """
        ...


class EncoderBackbone:
    """Implements `Backbone`."""

    def __init__(self, encoder: Encoder, device: torch.device) -> None:
        self._encoder = encoder
        self._device = device

    def run(self, requests: Sequence[PoolingRequest]) -> Tensor:
        lengths = [len(request.prompt_ids) for request in requests]
        token_ids = self._flat((request.prompt_ids for request in requests), sum(lengths))
        types = None
        if any(request.token_type_ids is not None for request in requests):
            given = (request.token_type_ids or [0] * len(request.prompt_ids) for request in requests)
            types = self._flat(given, sum(lengths))
        return self._encoder.forward(token_ids, types, lengths)

    def scrub(self) -> None:
        pass

    def _flat(self, lists: Any, count: int) -> Tensor:
        return to_device(np.fromiter(chain.from_iterable(lists), np.int64, count=count), self._device)


class DecoderBackbone:
    """A decoder whose `kv_cache` is written anew in every step: sequence after sequence, from its first block on."""

    def __init__(self, decoder: Decoder[Any], kv_cache: KvCache, device: torch.device) -> None:
        self._decoder = decoder
        self._kv_cache = kv_cache
        self._kv_view = decoder.kv_view(kv_cache.memory, kv_cache.layout)
        self._device = device
        self._used = 0

    def run(self, requests: Sequence[PoolingRequest]) -> Tensor:
        chunks = [request.prompt_ids for request in requests]
        block_size = self._kv_cache.layout.block_size
        ends = list(accumulate((-(-len(chunk) // block_size) for chunk in chunks), initial=1))
        tables = [range(first, end) for first, end in pairwise(ends)]
        self._used = ends[-1]
        token_ids, attention = lay_out(chunks, [0] * len(chunks), tables, block_size, self._device)
        return self._decoder.forward(token_ids, attention, self._kv_view).float()

    def scrub(self) -> None:
        self._kv_cache.scrub(range(self._used))
