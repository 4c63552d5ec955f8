"""The OpenAI routes: read, translate, run, write. Everything of substance is in the modules around this one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from headrace import __version__
from headrace.api.body import read_body
from headrace.api.disconnect import while_connected
from headrace.api.openai.answer import Head, PromptView, usage_policy
from headrace.api.openai.call import PRIORITY_HEADER
from headrace.api.openai.chat import ChatFormat, answer_role, chat_generation
from headrace.api.openai.completion import CompletionFormat, generations
from headrace.api.openai.fields import UndeclaredFields
from headrace.api.openai.merge import MergedStreams, collect
from headrace.api.openai.models import check_model, model_card, model_list
from headrace.api.openai.request_log import RequestLog
from headrace.api.openai.schema import (
    Body,
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    GenerationBody,
    TokenizeRequest,
)
from headrace.api.openai.template import chat_conversation
from headrace.api.openai.tokens import tokenize
from headrace.api.openai.wire import Detokenized, Wire, encode
from headrace.api.openapi import json_body
from headrace.api.request_ids import request_id
from headrace.api.sse import EventStream
from headrace.config.sections import ServeConfig
from headrace.service import Generation, Services
from headrace.service.generation import Generator
from headrace.service.stream import GenerationStream

B = TypeVar("B", bound=Body)

SCHEMAS = (CompletionRequest, ChatRequest, TokenizeRequest, DetokenizeRequest)


def openai_router(services: Services, config: ServeConfig) -> APIRouter:
    family = OpenAIFamily(services, config)
    router = APIRouter(tags=["OpenAI"])
    router.get("/v1/models")(family.list_models)
    router.get("/v1/models/{name:path}")(family.retrieve_model)
    for path, schema, handler in (
        ("/v1/completions", CompletionRequest, family.complete),
        ("/v1/chat/completions", ChatRequest, family.chat),
        ("/tokenize", TokenizeRequest, family.tokenize),
        ("/detokenize", DetokenizeRequest, family.detokenize),
    ):
        router.post(path, openapi_extra=json_body(schema))(handler)
    if config.api.enable_tokenizer_info_endpoint:
        router.get("/tokenizer_info")(family.tokenizer_info)
    return router


class OpenAIFamily:
    """The handlers. They hold nothing of a request."""

    def __init__(self, services: Services, config: ServeConfig) -> None:
        self._services = services
        self._config = config
        self._fields = UndeclaredFields(strict=config.api.strict_requests)
        self._log = RequestLog(enabled=config.logging.enable_log_requests, longest=config.logging.max_log_len)
        self._fingerprint = _fingerprint(services, config)

    async def list_models(self) -> Response:
        return _json(model_list(self._services))

    async def retrieve_model(self, name: str) -> Response:
        return _json(model_card(name, self._services))

    async def complete(self, http: Request) -> Response:
        generator = self._services.generator
        body = await self._read(http, CompletionRequest)
        usage = usage_policy(body, self._config.api)
        head = self._head(http, body, "cmpl-")
        priority = http.headers.get(PRIORITY_HEADER)
        calls = generations(body, generator.defaults, request_id=head.id, priority_header=priority)
        self._log.write(calls)
        merged = MergedStreams(await generator.start_all(calls))

        async def answer() -> CompletionFormat:
            pairs = zip(merged.streams, calls, strict=True)
            prompts = [await _prompt_view(body, stream, call, generator) for stream, call in pairs]
            return CompletionFormat(body, head, usage, prompts)

        async def chunks() -> AsyncGenerator[bytes, None]:
            async with aclosing(merged.deltas()) as deltas:
                async for chunk in (await answer()).chunks(deltas):
                    yield chunk

        if body.stream:
            return EventStream(chunks(), merged)
        async with merged:
            results = await while_connected(http.receive, collect(merged))
            return _json_text((await answer()).whole(results))

    async def chat(self, http: Request) -> Response:
        generator = self._services.generator
        body = await self._read(http, ChatRequest)
        usage = usage_policy(body, self._config.api)
        head = self._head(http, body, "chatcmpl-")
        prompt = await generator.render(chat_conversation(body, self._config.api.default_chat_template_kwargs))
        priority = http.headers.get(PRIORITY_HEADER)
        call = chat_generation(body, prompt, generator.defaults, request_id=head.id, priority_header=priority)
        self._log.write([call])
        merged = MergedStreams([await generator.start(call)])
        view = PromptView(merged.streams[0], prompt)
        answer = ChatFormat(body, head, usage, view, answer_role(body, self._config.api.response_role))

        async def chunks() -> AsyncGenerator[bytes, None]:
            async with aclosing(merged.deltas()) as deltas:
                async for chunk in answer.chunks(deltas):
                    yield chunk

        if body.stream:
            return EventStream(chunks(), merged)
        async with merged:
            results = await while_connected(http.receive, collect(merged))
            return _json_text(answer.whole(results[0]))

    async def tokenize(self, http: Request) -> Response:
        generator = self._services.generator
        body = await self._read(http, TokenizeRequest)
        return _json(await tokenize(body, generator, self._config.api.default_chat_template_kwargs))

    async def detokenize(self, http: Request) -> Response:
        generator = self._services.generator
        body = await self._read(http, DetokenizeRequest)
        return _json(Detokenized(prompt=await generator.detokenize(body.tokens)))

    async def tokenizer_info(self) -> Response:
        return _json_text(encode(self._services.generator.tokenizer.info()))

    async def _read(self, http: Request, schema: type[B]) -> B:
        body = await read_body(http, schema)
        self._fields.check(body)
        check_model(body.model, self._services)
        return body

    def _head(self, http: Request, body: GenerationBody, prefix: str) -> Head:
        return Head(
            id=prefix + request_id(http, body.request_id),
            created=int(time.time()),
            model=self._services.model_names[0],
            fingerprint=self._fingerprint,
        )


async def _prompt_view(
    body: CompletionRequest, stream: GenerationStream, call: Generation, generator: Generator
) -> PromptView:
    """An echoed prompt is shown as it was sent, or, if it came as ids or was cut, as its ids read."""
    if not body.echo:
        return PromptView(stream)
    as_sent = call.prompt if isinstance(call.prompt, str) and call.truncate_prompt_tokens is None else None
    return PromptView(
        stream,
        text=await generator.detokenize(stream.prompt_ids) if as_sent is None else as_sent,
        first_token=generator.tokenizer.token_text(stream.prompt_ids[0], ()),
    )


def _fingerprint(services: Services, config: ServeConfig) -> str:
    """`headrace-<version>-<8 hex digits>`: changes when what decides the tokens does."""
    engine = config.engine
    precision = (engine.dtype, engine.quantization, engine.kv_cache_dtype, engine.device, engine.kernels)
    facts = "\n".join(map(str, (services.model_root, config.model.revision, *precision)))
    return f"headrace-{__version__}-{hashlib.blake2b(facts.encode(), digest_size=4).hexdigest()}"


def _json(body: Wire) -> Response:
    return _json_text(encode(body))


def _json_text(text: bytes) -> Response:
    return Response(text, media_type="application/json")
