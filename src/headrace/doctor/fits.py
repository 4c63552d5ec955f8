"""Which models this machine has room for. Rules of thumb: nothing is loaded."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from headrace.doctor.report import Gpu, Memory, ModelFit, Room
from headrace.hub import ModelListing

_BESIDE_WEIGHTS = 600e6
"""Bytes that the processes of a server take without a model."""

_FOR_WEIGHTS = 0.8
"""Share of memory for weights; the rest is for keys and values, and for everybody else."""

_BYTES_OF_PARAMETER = {4: 0.5625, 8: 1.0625, 16: 2.0}
"""By width in bits. The narrow ones have a scale for every 32 weights."""


def fits_of(models: Iterable[ModelListing], memory: Memory) -> tuple[ModelFit, ...]:
    room = _room_for_weights(memory.usable)
    return tuple(
        ModelFit(
            name=model.name,
            task=model.task,
            size=model.size,
            present=model.present,
            fits=model.size <= room,
            most_tokens_per_second=memory.bandwidth / model.size,
        )
        for model in models
    )


def rooms_of(memory: Memory, gpus: Sequence[Gpu]) -> tuple[Room, ...]:
    rooms = [*_rooms("memory", memory.usable)]
    if gpus:
        largest = max(gpu.memory for gpu in gpus)
        # Floats as they are: quantised weights have kernels of their own on a CPU only.
        rooms += [room for room in _rooms("GPU memory", largest) if room.bits == 16]
    return tuple(rooms)


def _rooms(where: str, size: int) -> Iterator[Room]:
    for bits, width in _BYTES_OF_PARAMETER.items():
        yield Room(where=where, bits=bits, parameters=int(_room_for_weights(size) / width))


def _room_for_weights(size: int) -> float:
    return max(0.0, _FOR_WEIGHTS * size - _BESIDE_WEIGHTS)
