"""Tokens in, tokens out: the engine's own language over HTTP."""

from __future__ import annotations

import time

from fastapi import APIRouter, Request, Response

from headrace.api.body import read_body
from headrace.api.call import PRIORITY_HEADER
from headrace.api.disconnect import while_connected
from headrace.api.fields import UndeclaredFields
from headrace.api.live import LiveRequests
from headrace.api.merge import MergedStreams, collect
from headrace.api.openapi import json_body
from headrace.api.request_ids import request_id
from headrace.api.request_log import RequestLog
from headrace.api.sse import EventStream
from headrace.api.tokens.answer import Head, TokensFormat
from headrace.api.tokens.call import generation, naming_fields_of
from headrace.api.tokens.fields import NOT_IMPLEMENTED
from headrace.api.tokens.schema import AbortRequest, GenerateRequest
from headrace.api.usage import usage_policy
from headrace.config.sections import ServeConfig
from headrace.service import Services

SCHEMAS = (GenerateRequest, AbortRequest)

_ID_PREFIX = "generate-tokens-"


def tokens_router(services: Services, config: ServeConfig, live: LiveRequests) -> APIRouter:
    family = TokensFamily(services, config, live)
    router = APIRouter(tags=["Tokens"], prefix="/inference/v1")
    router.post("/generate", openapi_extra=json_body(GenerateRequest))(family.generate)
    router.post("/abort_requests", openapi_extra=json_body(AbortRequest))(family.abort_requests)
    return router


class TokensFamily:
    """The handlers. They hold nothing of a request."""

    def __init__(self, services: Services, config: ServeConfig, live: LiveRequests) -> None:
        self._services = services
        self._config = config
        self._live = live
        self._fields = UndeclaredFields(NOT_IMPLEMENTED, strict=config.api.strict_requests)
        self._log = RequestLog(enabled=config.logging.enable_log_requests, longest=config.logging.max_log_len)

    async def generate(self, http: Request) -> Response:
        """Continue a prompt of token ids. No text is made unless `output_mode` or `stop` asks for it."""
        body = await read_body(http, GenerateRequest)
        self._fields.check(body)
        generator = await self._services.generator(body.model)
        usage = usage_policy(body.stream_options, stream=body.stream, config=self._config.api)
        name = request_id(http, body.request_id)
        head = Head(_ID_PREFIX + name, int(time.time()), generator.model_name)
        call = generation(
            body,
            generator.defaults,
            request_id=head.request_id,
            max_num_seqs=self._services.find(generator.model_name).config.engine.max_num_seqs,
            priority_header=http.headers.get(PRIORITY_HEADER),
        )
        self._log.write([call])
        with naming_fields_of(body):
            stream = await generator.start(call)
        merged = MergedStreams([stream])
        running = self._live.tracked((head.request_id, name), merged)
        answer = TokensFormat(body, call.sampling, head, usage, stream)

        if body.stream:
            return EventStream(merged.chunks(answer.chunks), running)
        async with running:
            (results,) = await while_connected(http.receive, collect(merged))
            return Response(answer.whole(results), media_type="application/json")

    async def abort_requests(self, http: Request) -> Response:
        """End requests of any route by the ids of their answers; those that are unknown have ended already."""
        body = await read_body(http, AbortRequest)
        for asked in body.request_ids:
            self._live.abort(asked)
        return Response()
