"""Connections of the async client: as many as there are requests at a time, used again, and given back."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from headrace.client import AsyncClient, RetryPolicy, TransportError
from headrace.client.lanes import Lanes, over_tcp


class Wire(httpx.AsyncBaseTransport):
    """One connection; `busy` while it carries a request and its answer."""

    def __init__(self, gate: asyncio.Event) -> None:
        self.busy = False
        self.carried = 0
        self._gate = gate

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        assert not self.busy, "two requests on one connection"
        self.busy = True
        self.carried += 1
        await self._gate.wait()
        if request.url.path.endswith("/detokenize"):
            self.busy = False
            raise httpx.ReadError("broken")
        return httpx.Response(200, stream=Body(self), headers={"Content-Type": "application/json"})


class Body(httpx.AsyncByteStream):
    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    async def __aiter__(self):
        yield b'{"data": []}'

    async def aclose(self) -> None:
        self._wire.busy = False


def test_each_request_has_its_own_and_they_are_used_again() -> None:
    async def run() -> None:
        gate = asyncio.Event()
        wires: list[Wire] = []

        def make() -> Wire:
            wires.append(Wire(gate))
            return wires[-1]

        async with AsyncClient(transport=Lanes(make), retry=RetryPolicy(max_retries=0)) as client:
            first = [asyncio.create_task(client.models()) for _ in range(3)]
            while len(wires) < 3 or not all(wire.busy for wire in wires):
                await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*first)
            for _ in range(4):
                await client.models()
            with pytest.raises(TransportError):
                await client.detokenize([1])
            cancelled = asyncio.create_task(client.models())
            await asyncio.sleep(0)
            cancelled.cancel()
            await asyncio.gather(cancelled, return_exceptions=True)
            await client.models()
        assert len(wires) == 3
        assert sum(wire.carried for wire in wires) >= 9

    asyncio.run(run())


def test_proxies_are_left_to_httpx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    assert over_tcp() is None
