"""The error tree. Two branches decide who has to act: the caller (4xx) or us (5xx).

HeadraceError                  500
├── CallerError                400   the caller can fix it
│   ├── BadRequest             400   a value makes no sense
│   │   ├── ContextOverflow    400   prompt or output does not fit the context window
│   │   └── Unsupported        400   a known parameter this server does not implement
│   ├── NotPermitted           403   a feature that this server has switched off
│   └── NotFound               404   no such model, file or route
├── Unavailable                503   trying again later can help
│   ├── Overloaded             503   the queue is full
│   ├── NotReady               503   the model is still being loaded
│   └── EngineDead             503   the engine process is gone
├── EngineError                500   the engine failed on this request
└── StartupError               -     the server cannot start; the text is for the terminal
    ├── ConfigError                  a flag, YAML key or environment variable is wrong
    ├── ModelNotFound                no such model, or it cannot be fetched from here
    └── BadCheckpoint                the model's files are damaged or not understood
"""

from __future__ import annotations


class HeadraceError(Exception):
    """Root of every error that Headrace raises on purpose.

    `status` is the HTTP status a protocol family answers with; the shape of the body is the family's own.
    """

    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class CallerError(HeadraceError):
    """The caller's fault. `parameter` names the field to change and `value` what it held, where known."""

    status = 400

    def __init__(self, message: str, *, parameter: str | None = None, value: object = None) -> None:
        super().__init__(message)
        self.parameter = parameter
        self.value = value

    def __reduce__(self) -> tuple:
        return _rebuild, (type(self), self.message, self.parameter, self.value)


def _rebuild(kind: type[CallerError], message: str, parameter: str | None, value: object) -> CallerError:
    return kind(message, parameter=parameter, value=value)


class BadRequest(CallerError):
    """A value that makes no sense, or a combination of values that does not."""


class ContextOverflow(BadRequest):
    """The prompt, or the prompt with the output asked for, does not fit the model's context window."""


class Unsupported(BadRequest):
    """A parameter that the contract knows and this server does not implement (never accepted and ignored)."""


class NotPermitted(CallerError):
    """A feature that exists but is switched off on this server."""

    status = 403


class NotFound(CallerError):
    """No such model, adapter or object."""

    status = 404


class Unavailable(HeadraceError):
    """The request was fine; trying it again later can succeed."""

    status = 503


class Overloaded(Unavailable):
    """The waiting queue has reached its limit."""


class NotReady(Unavailable):
    """The model is still being loaded."""


class EngineDead(Unavailable):
    """The engine process ended while the request was in flight, or could not be started."""


class EngineError(HeadraceError):
    """The engine failed on this request; its neighbours are undisturbed."""


class StartupError(HeadraceError):
    """The server cannot start. Shown on the terminal without a traceback."""


class ConfigError(StartupError):
    """A flag, YAML key or environment variable is unknown or has a value that makes no sense."""


class ModelNotFound(StartupError):
    """No such model here, or it cannot be fetched from here."""


class BadCheckpoint(StartupError):
    """The model's files are incomplete, damaged, or of an architecture that is not supported."""
