"""What the commands that call a server have in common: which one, and what is said when that fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from headrace.client import (
    AuthenticationError,
    Client,
    ClientError,
    ConnectFailed,
    NotFoundError,
    RateLimitError,
    RetryPolicy,
    ServerError,
)
from headrace.core.errors import ConfigError, StartupError

EXIT_BROKEN_PIPE = 141
"""What shells make of a command that SIGPIPE has ended."""

_RETRY = RetryPolicy(max_retries=2, first_delay=0.2)
"""Somebody waits at a terminal: what is wrong is said soon."""

_KEPT_CONTROLS = "\n\t"


@dataclass(frozen=True, slots=True, kw_only=True)
class Remote:
    """Which model of which server, None where the environment or the server decides."""

    url: str | None
    model: str | None
    api_key: str | None = field(repr=False)

    @contextmanager
    def client(self) -> Iterator[Client]:
        """A client whose model is chosen: servers of other makers do not know a request without one.

        Raises `ConfigError` for an address that makes no sense; every `ClientError` becomes a `RemoteFailed`.
        """
        with self._connected(self.model) as client:
            if self.model is not None:
                yield client
                return
            served = client.models()
        with self._connected(served[0].id if served else None) as client:
            yield client

    @contextmanager
    def _connected(self, model: str | None) -> Iterator[Client]:
        try:
            client = Client(self.url, self.api_key, model=model, retry=_RETRY)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        with client, explained(client.base_url):
            yield client


class RemoteFailed(StartupError):
    """A server refused, failed or is not there. Shown on the terminal without a traceback, with a hint."""


@contextmanager
def explained(url: str) -> Iterator[None]:
    """Raises `RemoteFailed` for what a client raises."""
    try:
        yield
    except ClientError as error:
        raise RemoteFailed(f"{error.message}{_hint(error, url)}") from error


def _hint(error: ClientError, url: str) -> str:
    if isinstance(error, ConnectFailed):
        return f"\nNobody answers at {url}. Start a server with: headrace serve; or name another one with --url."
    if isinstance(error, AuthenticationError):
        return "\nSet HEADRACE_API_KEY, or give --api-key."
    if isinstance(error, NotFoundError):
        return f"\nLook at {url}/v1/models for what is served, or name another server with --url."
    if isinstance(error, RateLimitError):
        return "\nThe server has too much to do. Try again later."
    if isinstance(error, ServerError) and error.request_id is not None:
        return f"\nThe server's log calls this request {error.request_id}."
    return ""


def shown(text: str) -> str:
    """`text` for a terminal: what a model says moves no cursor and changes no colours."""
    return "".join(char if char.isprintable() or char in _KEPT_CONTROLS else "\ufffd" for char in text)


def drop_output() -> None:
    """After a `BrokenPipeError`: what is still buffered has no reader, and is not to fail at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
