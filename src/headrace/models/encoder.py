"""What the engine asks of an encoder, whichever kernels it runs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from headrace.models.encoder_spec import EncoderSpec
from headrace.models.parameters import Parameter, WeightReader


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderBlueprint:
    """All that a `config.json` says of an encoder: its shape, and the parameters that `encoder_parameters.py` lists."""

    spec: EncoderSpec
    parameters: tuple[Parameter, ...]


class Encoder(Protocol):
    """An encoder. `load` gives it its weights, once; after that it never changes."""

    @property
    def spec(self) -> EncoderSpec: ...

    @property
    def blueprint(self) -> EncoderBlueprint: ...

    @property
    def kernels(self) -> str:
        """What it runs on: "reference", "native avx2"."""
        ...

    @property
    def precision(self) -> str:
        """What most of its weights are kept in: "float32", "int8". Known once they are loaded."""
        ...

    def load(self, weights: WeightReader) -> None:
        """Read every parameter of the blueprint."""
        ...

    def forward(self, token_ids: Tensor, token_type_ids: Tensor | None, lengths: Sequence[int]) -> Tensor:
        """Run sequences of `lengths` (each at least 1) that lie end to end, T tokens in all, on the model's device.

        `token_ids` and `token_type_ids` are int64 [T]; None: all of type 0. Returns the hidden states, float32
        [T, hidden_size], which the next call may overwrite.
        """
        ...
