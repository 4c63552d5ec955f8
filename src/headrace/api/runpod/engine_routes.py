"""The OpenAI routes that a job may call, without a connection in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing

import msgspec
from fastapi import Request, Response
from starlette.types import Message

from headrace.api.openai.routes import OpenAIFamily
from headrace.api.pooling.routes import PoolingFamily
from headrace.api.request_ids import HEADER as REQUEST_ID
from headrace.api.runpod.growth import ChunkGrowth
from headrace.api.runpod.inputs import RouteJob
from headrace.api.sse import EventStream
from headrace.core.errors import BadRequest

_Handler = Callable[[Request], Awaitable[Response]]
_MODEL = "/v1/models/"
_JSON = "application/json"


class EngineRoutes:
    """Calls the handlers of two families. Routes that are not listed here, such as those for operators, are out of
    reach of jobs.
    """

    def __init__(self, family: OpenAIFamily, pooling: PoolingFamily) -> None:
        async def models(_: Request) -> Response:
            return await family.list_models()

        async def model(http: Request) -> Response:
            return await family.retrieve_model(http.url.path.removeprefix(_MODEL))

        self._model = model
        self._handlers: dict[str, tuple[str, _Handler]] = {
            "/v1/chat/completions": ("POST", family.chat),
            "/v1/completions": ("POST", family.complete),
            "/v1/models": ("GET", models),
            "/tokenize": ("POST", family.tokenize),
            "/detokenize": ("POST", family.detokenize),
            "/v1/embeddings": ("POST", pooling.embed),
            "/pooling": ("POST", pooling.pool),
            "/classify": ("POST", pooling.classify),
            "/score": ("POST", pooling.score),
            "/v1/score": ("POST", pooling.score),
            "/rerank": ("POST", pooling.rerank),
            "/v1/rerank": ("POST", pooling.rerank),
            "/v2/rerank": ("POST", pooling.rerank),
        }

    async def run(self, job: RouteJob, request_id: str, growth: ChunkGrowth) -> AsyncGenerator[msgspec.Raw | str, None]:
        """What the route answers: JSON, or, if it streams, texts of whole events, as many in each as `growth` says.

        Raises what the route raises, and `BadRequest` for a route that is not to be had.
        """
        response = await self._handler(job)(_request(job, request_id))
        if not isinstance(response, EventStream):
            if response.media_type != _JSON:
                raise BadRequest(f"The output of a job is JSON; {job.path} answered {response.media_type}.")
            yield msgspec.Raw(response.body)
            return
        sizes = growth.sizes()
        left = next(sizes)
        pending: list[bytes] = []
        async with aclosing(response.frames()) as frames:
            async for frame in frames:
                pending.append(frame)
                left -= 1
                if left == 0:
                    yield b"".join(pending).decode()
                    pending, left = [], next(sizes)
        if pending:
            yield b"".join(pending).decode()

    def _handler(self, job: RouteJob) -> _Handler:
        method, handler = self._handlers.get(job.path, (None, None))
        if job.path.startswith(_MODEL):
            method, handler = "GET", self._model
        if handler is None:
            known = ", ".join((*self._handlers, _MODEL + "{name}"))
            raise BadRequest(f"Jobs cannot call {job.path!r}, only {known}.", parameter="route", value=job.path)
        if method != job.method:
            raise BadRequest(f"{job.path} takes {method}, not {job.method}.", parameter="method", value=job.method)
        return handler


def _request(job: RouteJob, request_id: str) -> Request:
    """As a server would hand it to the route; its caller never goes away."""
    body = b"" if job.body is None else msgspec.json.encode(job.body)
    messages: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        if not messages:
            await asyncio.Event().wait()
        return messages.pop()

    scope = {
        "type": "http",
        "method": job.method,
        "path": job.path,
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (REQUEST_ID.lower().encode(), request_id.encode())],
    }
    return Request(scope, receive)
