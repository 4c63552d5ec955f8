"""The demo API that older clients speak: a prompt in, texts out, newline-delimited JSON for a stream."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from headrace.api.body import read_body
from headrace.api.disconnect import while_connected
from headrace.api.legacy.answer import growing, searching, whole
from headrace.api.legacy.call import generation
from headrace.api.legacy.lines import JsonLines
from headrace.api.legacy.schema import LegacyRequest
from headrace.api.live import LiveRequests
from headrace.api.merge import MergedStreams, collect
from headrace.api.openapi import json_body
from headrace.api.request_ids import request_id
from headrace.api.request_log import RequestLog
from headrace.config.sections import ServeConfig
from headrace.service import Services

SCHEMAS = (LegacyRequest,)


def legacy_router(services: Services, config: ServeConfig, live: LiveRequests) -> APIRouter:
    family = LegacyFamily(services, config, live)
    router = APIRouter(tags=["Legacy"])
    router.post("/generate", openapi_extra=json_body(LegacyRequest))(family.generate)
    return router


class LegacyFamily:
    """The handler. It holds nothing of a request."""

    def __init__(self, services: Services, config: ServeConfig, live: LiveRequests) -> None:
        self._services = services
        self._live = live
        self._log = RequestLog(enabled=config.logging.enable_log_requests, longest=config.logging.max_log_len)

    async def generate(self, http: Request) -> Response:
        """Continue a prompt. Every key but `prompt` and `stream` is a sampling parameter."""
        body = await read_body(http, LegacyRequest)
        generator = await self._services.generator(None)
        name = request_id(http, None)
        call = generation(body, request_id=name)
        self._log.write([call])
        stream = await generator.start(call)
        merged = MergedStreams([stream])
        running = self._live.tracked((name,), merged)

        if body.stream:
            lines = searching if call.sampling.use_beam_search else growing
            return JsonLines(lines(body.prompt, stream), running)
        async with running:
            (results,) = await while_connected(http.receive, collect(merged))
            return Response(whole(body.prompt, results), media_type="application/json")
