"""What the API process and an engine process say to each other, as msgpack over a socket.

An engine process can hold several engines: `engine` is the number of the one that a message is for, or is from.
"""

from __future__ import annotations

import msgspec

from headrace.config.engine import EngineConfig
from headrace.core.pooling import PoolingRequest
from headrace.core.request import EngineInfo, Request, StepOutput
from headrace.core.vocabulary import Vocabulary


class Hello(msgspec.Struct, frozen=True, tag=True):
    """First message to the process."""

    log_level: str


class Load(msgspec.Struct, frozen=True, tag=True):
    """Make an engine of this number: for which model, and how.

    `memory_share`: the part it may take of the memory that is for engines which are not told how much they may take.
    """

    engine: int
    model_path: str
    config: EngineConfig
    memory_share: float


class Unload(msgspec.Struct, frozen=True, tag=True):
    """Free the engine, whether it is loaded already or not."""

    engine: int


class Submit(msgspec.Struct, frozen=True, tag=True):
    engine: int
    request: Request


class SubmitPooling(msgspec.Struct, frozen=True, tag=True):
    engine: int
    request: PoolingRequest


class Learn(msgspec.Struct, frozen=True, tag=True):
    """What requests with a grammar are held against; before the first of them."""

    engine: int
    vocabulary: Vocabulary


class Abort(msgspec.Struct, frozen=True, tag=True):
    """`choice` None: every choice of the request."""

    engine: int
    request_id: str
    choice: int | None


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Last message to the process."""


ToEngines = Hello | Load | Unload | Submit | SubmitPooling | Learn | Abort | Stop


class Loading(msgspec.Struct, frozen=True, tag=True):
    """Bytes of weights read so far, and in all."""

    engine: int
    done: int
    total: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    engine: int
    info: EngineInfo


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """The model cannot be loaded; there is no engine of this number. Trying again will hardly help."""

    engine: int
    message: str


class Stepped(msgspec.Struct, frozen=True, tag=True):
    engine: int
    output: StepOutput


FromEngines = Loading | Ready | LoadFailed | Stepped

encode = msgspec.msgpack.Encoder().encode
decode_to_engines = msgspec.msgpack.Decoder(ToEngines).decode
decode_from_engines = msgspec.msgpack.Decoder(FromEngines).decode
