"""What the API process and the engine process say to each other, as msgpack over a socket."""

from __future__ import annotations

import msgspec

from headrace.config.engine import EngineConfig
from headrace.core.request import EngineInfo, Request, StepOutput


class Load(msgspec.Struct, frozen=True, tag=True):
    """First message to the engine: which model to load, and how."""

    model_path: str
    config: EngineConfig
    log_level: str


class Submit(msgspec.Struct, frozen=True, tag=True):
    request: Request


class Abort(msgspec.Struct, frozen=True, tag=True):
    """`choice` None: every choice of the request."""

    request_id: str
    choice: int | None


class Stop(msgspec.Struct, frozen=True, tag=True):
    """Last message to the engine."""


ToEngine = Load | Submit | Abort | Stop


class Loading(msgspec.Struct, frozen=True, tag=True):
    """Bytes of weights read so far, and in all."""

    done: int
    total: int


class Ready(msgspec.Struct, frozen=True, tag=True):
    info: EngineInfo


class LoadFailed(msgspec.Struct, frozen=True, tag=True):
    """The model cannot be loaded; trying again will not help."""

    message: str


class Stepped(msgspec.Struct, frozen=True, tag=True):
    output: StepOutput


FromEngine = Loading | Ready | LoadFailed | Stepped

encode = msgspec.msgpack.Encoder().encode
decode_to_engine = msgspec.msgpack.Decoder(ToEngine).decode
decode_from_engine = msgspec.msgpack.Decoder(FromEngine).decode
