"""API keys in front of the routes that run the model."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api.errors import unauthorized
from headrace.api.root_path import route_path

GUARDED = ("/v1", "/v2", "/inference", "/cohere")


class Authentication:
    """Answers 401 on a guarded path without one of `keys` as bearer token. No keys: everything is open.

    `OPTIONS` is free, as browsers send their preflights without a key.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._needs_key(scope) and not self._is_known(Headers(scope=scope).get("authorization", "")):
            await unauthorized()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _needs_key(self, scope: Scope) -> bool:
        if not self._digests or scope["type"] != "http" or scope["method"] == "OPTIONS":
            return False
        return route_path(scope).startswith(GUARDED)

    def _is_known(self, header: str) -> bool:
        scheme, _, token = header.partition(" ")
        given = _digest(token.strip())
        # Every key is compared, and digests have one length, so the time taken says nothing about the keys.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return scheme.lower() == "bearer" and any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
