"""The slashes that clients double when their base URL ends in one: `…/v2//endpoint/run`, `//run`."""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Receive, Scope, Send

from headrace.api.root_path import route_path

_FRONT = re.compile(r"/+(?:v2(?:/+[^/]+)?/+)?")
_DOUBLED = re.compile(r"/{2,}")


class SingleSlash:
    """Reads them as one. It must stand inside `RootPath` and outside whatever else looks at paths.

    Slashes behind the endpoint stay as they are: a model may be named by an absolute path.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (front := _FRONT.match(path := route_path(scope))):
            prefix = scope["path"][: len(scope["path"]) - len(path)]
            scope["path"] = prefix + _DOUBLED.sub("/", front.group()) + path[front.end() :]
        await self._app(scope, receive, send)
