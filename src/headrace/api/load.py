"""How many requests are being answered, for /load."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send


class ServerLoad:
    """The count. Only `TrackLoad` changes it."""

    def __init__(self) -> None:
        self.requests = 0


class TrackLoad:
    """Counts requests that run the model or its tokenizer, which are all that are posted, while they are answered."""

    def __init__(self, app: ASGIApp, load: ServerLoad) -> None:
        self._app = app
        self._load = load

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self._app(scope, receive, send)
            return
        self._load.requests += 1
        try:
            await self._app(scope, receive, send)
        finally:
            self._load.requests -= 1
