"""What the commands that call a server have in common: which one, and what is said when that fails."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

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
        """A client whose model is chosen if there is but one: servers of other makers do not know a request without.
        One that serves several knows best which of them a request is for.

        Raises `ConfigError` for an address that makes no sense; every `ClientError` becomes a `RemoteFailed`.
        """
        with self.connection() as client:
            if self.model is not None:
                yield client
                return
            served = client.models()
        with replace(self, model=served[0].id if len(served) == 1 else None).connection() as client:
            yield client

    @contextmanager
    def connection(self, *, not_found: str | None = None) -> Iterator[Client]:
        """A client as it is described here. `not_found`: what is said to those who ask for what is not there."""
        try:
            client = Client(self.url, self.api_key, model=self.model, retry=_RETRY)
        except ValueError as error:
            raise ConfigError(str(error)) from None
        with client, explained(client.base_url, not_found=not_found):
            yield client


class RemoteFailed(StartupError):
    """A server refused, failed or is not there. Shown on the terminal without a traceback, with a hint."""


@contextmanager
def explained(url: str, *, not_found: str | None = None) -> Iterator[None]:
    """Raises `RemoteFailed` for what a client raises, with a hint. `not_found`: the one for a `NotFoundError`."""
    try:
        yield
    except ClientError as error:
        raise RemoteFailed(f"{error.message}{_hint(error, url, not_found)}") from error


def _hint(error: ClientError, url: str, not_found: str | None) -> str:
    if isinstance(error, ConnectFailed):
        return f"\nNobody answers at {url}. Start a server with: headrace serve; or name another one with --url."
    if isinstance(error, AuthenticationError):
        return "\nSet HEADRACE_API_KEY, or give --api-key."
    if isinstance(error, NotFoundError):
        return "\n" + (not_found or f"Look at {url}/v1/models for what is served, or name another server with --url.")
    if isinstance(error, RateLimitError):
        return "\nThe server has too much to do. Try again later."
    if isinstance(error, ServerError) and error.request_id is not None:
        return f"\nThe server's log calls this request {error.request_id}."
    return ""


def text_from_stdin(name: str) -> str:
    """Standard input, without the line end that editors and `echo` put behind a text; `name` is what it stands for.

    Raises `ConfigError` if it is a terminal, or no text.
    """
    if sys.stdin.isatty():
        raise ConfigError(f"{name} needs a value, or a text on standard input.")
    try:
        return sys.stdin.buffer.read().decode().removesuffix("\n")
    except UnicodeDecodeError as error:
        raise ConfigError(f"standard input is not UTF-8 text ({error}).") from None


def shown(text: str) -> str:
    """`text` for a terminal: what a model says moves no cursor and changes no colours."""
    return "".join(char if char.isprintable() or char in _KEPT_CONTROLS else "\ufffd" for char in text)


def drop_output() -> None:
    """After a `BrokenPipeError`: what is still buffered has no reader, and is not to fail at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
