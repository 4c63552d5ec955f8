"""One way to drive either client, so that each test runs with both."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from headrace.client import AsyncClient, Client, RetryPolicy

QUICK = RetryPolicy(first_delay=0.001, longest_delay=0.002)

Driver = Callable[..., Any]
"""`drive(url, "jobs.status", "id", key=value, **options of the client)` -> the result, or a stream's items."""


def drive_sync(url: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **keywords: Any) -> Any:
    with Client(url, **{"retry": QUICK, **(options or {})}) as client:
        result = _method(client, method)(*arguments, **keywords)
        if not hasattr(result, "__next__"):
            return result
        with result as stream:
            return list(stream)


def drive_async(url: str, method: str, *arguments: Any, options: dict[str, Any] | None = None, **keywords: Any) -> Any:
    async def run() -> Any:
        async with AsyncClient(url, **{"retry": QUICK, **(options or {})}) as client:
            result = _method(client, method)(*arguments, **keywords)
            if not hasattr(result, "__anext__"):
                result = await result
            if not hasattr(result, "__anext__"):
                return result
            async with result as stream:
                return [item async for item in stream]

    return asyncio.run(run())


def _method(client: Any, name: str) -> Any:
    for step in name.split("."):
        client = getattr(client, step)
    return client
