"""What was found. Sizes are in bytes."""

from __future__ import annotations

from msgspec import Struct


class Cpu(Struct, frozen=True, kw_only=True):
    """`cores` is how many physical ones this process may use. `features`: those that kernels are written for."""

    model: str
    architecture: str
    cores: int
    features: tuple[str, ...]


class Memory(Struct, frozen=True, kw_only=True):
    """`usable` by this process; `bandwidth` bytes a second, read by all usable cores together."""

    usable: int
    bandwidth: float


class Gpu(Struct, frozen=True, kw_only=True):
    name: str
    memory: int
    driver: str


class Torch(Struct, frozen=True, kw_only=True):
    """`cuda`: the version that it was built for, None for a build without. `problem`: why it cannot be used."""

    version: str | None = None
    cuda: str | None = None
    finds_gpu: bool = False
    problem: str | None = None


class Kernels(Struct, frozen=True, kw_only=True):
    """What would compute on the CPU: `name`, or nothing of our own because of a `problem`."""

    name: str | None = None
    problem: str | None = None


class Part(Struct, frozen=True, kw_only=True):
    """Something that can be installed. `version` None: it is not."""

    name: str
    purpose: str
    install: str
    version: str | None = None


class ModelFit(Struct, frozen=True, kw_only=True):
    """A known model. `most_tokens_per_second`: how often memory can be read through its weights; one sequence cannot be
    faster, and is slower in fact.
    """

    name: str
    task: str
    size: int
    present: bool
    fits: bool
    most_tokens_per_second: float


class Room(Struct, frozen=True, kw_only=True):
    """About how many parameters a model may have at a width of its weights, in `where`: "memory" or "GPU memory"."""

    where: str
    bits: int
    parameters: int


class Report(Struct, frozen=True, kw_only=True):
    """`warnings`: what is wrong. `advice`: what could be done next."""

    headrace: str
    python: str
    system: str
    cpu: Cpu
    memory: Memory
    gpus: tuple[Gpu, ...]
    torch: Torch
    kernels: Kernels
    parts: tuple[Part, ...]
    models: tuple[ModelFit, ...]
    room: tuple[Room, ...]
    warnings: tuple[str, ...]
    advice: tuple[str, ...]
