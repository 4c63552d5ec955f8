"""The prefix under which a proxy shows this server. Routes answer with it and without it."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """Tells routing which prefix to strip. The ASGI server must not be given the prefix as well."""

    def __init__(self, app: ASGIApp, prefix: str) -> None:
        self._app = app
        self._prefix = prefix.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self._prefix:
            scope["root_path"] = self._prefix
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """The path that routing sees."""
    path: str = scope["path"]
    prefix: str = scope.get("root_path", "")
    if prefix and (path == prefix or path.startswith(prefix + "/")):
        return path[len(prefix) :]
    return path
