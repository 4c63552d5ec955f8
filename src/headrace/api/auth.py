"""API keys in front of the routes that run the model."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Sequence

from fastapi import Request
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api.boundary import write_error
from headrace.api.errors import Unauthenticated
from headrace.api.root_path import route_path
from headrace.api.runpod.paths import is_runpod_path

GUARDED = ("/v1", "/v2", "/inference", "/cohere", "/generate")
_OWNER_CHARS = 32


class Authentication:
    """Answers 401 on a guarded path without one of `keys` as bearer token. No keys: everything is open.

    Where Runpod's clients call, the bare key will do. `OPTIONS` is free, as browsers send their preflights without a
    key.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._digests = [_digest(key) for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._needs_key(scope):
            header = Headers(scope=scope).get("authorization", "")
            digest = self._known(header, bare=is_runpod_path(route_path(scope)))
            if digest is None:
                error = Unauthenticated("The API key is missing or wrong.")
                await write_error(scope, error)(scope, receive, send)
                return
            scope.setdefault("state", {})["owner"] = digest.hex()[:_OWNER_CHARS]
        await self._app(scope, receive, send)

    def _needs_key(self, scope: Scope) -> bool:
        if not self._digests or scope["type"] != "http" or scope["method"] == "OPTIONS":
            return False
        path = route_path(scope)
        return path.startswith(GUARDED) or is_runpod_path(path)

    def _known(self, header: str, *, bare: bool) -> bytes | None:
        """The digest of the key in the header, if it is one of ours."""
        scheme, _, token = header.partition(" ")
        if bare and not token:
            scheme, token = "bearer", header
        given = _digest(token.strip())
        # Every key is compared, and digests have one length, so the time taken says nothing about the keys.
        matches = [hmac.compare_digest(given, digest) for digest in self._digests]
        return given if scheme.lower() == "bearer" and any(matches) else None


def owner_of(http: Request) -> str:
    """What stands for the key of a request; "" where no keys are needed."""
    owner: str = http.scope.get("state", {}).get("owner", "")
    return owner


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()
