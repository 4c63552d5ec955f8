"""The OpenAI routes: read, translate, run, write. Everything of substance is in the modules around this one."""

from __future__ import annotations

import hashlib
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from typing import TypeVar

from fastapi import APIRouter, Request, Response

from headrace import __version__
from headrace.api.body import read_body
from headrace.api.call import PRIORITY_HEADER
from headrace.api.disconnect import while_connected
from headrace.api.fields import UndeclaredFields
from headrace.api.live import LiveRequests
from headrace.api.merge import MergedStreams, collect
from headrace.api.openai.answer import Head, PromptView
from headrace.api.openai.chat import ChatCall, answer_role, chat_call
from headrace.api.openai.chat_format import ChatFormat
from headrace.api.openai.completion import CompletionFormat, generations
from headrace.api.openai.fields import NOT_IMPLEMENTED
from headrace.api.openai.models import model_card, model_list
from headrace.api.openai.render import token_request
from headrace.api.openai.schema import (
    ChatRequest,
    CompletionRequest,
    DetokenizeRequest,
    GenerationBody,
    TokenizeRequest,
)
from headrace.api.openai.tokens import tokenize
from headrace.api.openai.wire import Detokenized
from headrace.api.openapi import json_body
from headrace.api.record import Body
from headrace.api.request_ids import request_id
from headrace.api.request_log import RequestLog
from headrace.api.sse import EventStream
from headrace.api.usage import usage_policy
from headrace.api.wire import Wire, encode
from headrace.config.sections import ServeConfig, ServedModelConfig
from headrace.service import Generation, Services
from headrace.service.generation import Generator
from headrace.service.stream import GenerationStream

B = TypeVar("B", bound=Body)

SCHEMAS = (CompletionRequest, ChatRequest, TokenizeRequest, DetokenizeRequest)


def openai_router(services: Services, config: ServeConfig, live: LiveRequests) -> APIRouter:
    family = OpenAIFamily(services, config, live)
    router = APIRouter(tags=["OpenAI"])
    router.get("/v1/models")(family.list_models)
    router.get("/v1/models/{name:path}")(family.retrieve_model)
    for path, schema, handler in (
        ("/v1/completions", CompletionRequest, family.complete),
        ("/v1/chat/completions", ChatRequest, family.chat),
        ("/v1/completions/render", CompletionRequest, family.render_completion),
        ("/v1/chat/completions/render", ChatRequest, family.render_chat),
        ("/tokenize", TokenizeRequest, family.tokenize),
        ("/detokenize", DetokenizeRequest, family.detokenize),
    ):
        router.post(path, openapi_extra=json_body(schema))(handler)
    if config.api.enable_tokenizer_info_endpoint:
        router.get("/tokenizer_info")(family.tokenizer_info)
    return router


class OpenAIFamily:
    """The handlers. They hold nothing of a request."""

    def __init__(self, services: Services, config: ServeConfig, live: LiveRequests) -> None:
        self._services = services
        self._config = config
        self._live = live
        self._fields = UndeclaredFields(NOT_IMPLEMENTED, strict=config.api.strict_requests)
        self._log = RequestLog(enabled=config.logging.enable_log_requests, longest=config.logging.max_log_len)
        self._tokens_as_ids = config.api.return_tokens_as_token_ids
        self._fingerprints = {model.name: _fingerprint(model.config) for model in services.models}

    async def list_models(self) -> Response:
        return _json(model_list(self._services))

    async def retrieve_model(self, name: str) -> Response:
        return _json(model_card(name, self._services))

    async def complete(self, http: Request) -> Response:
        body = await self._read(http, CompletionRequest)
        generator = await self._services.generator(body.model)
        usage = usage_policy(body.stream_options, stream=body.stream, config=self._config.api)
        head = self._head(http, body, "cmpl-", generator)
        calls = _completion_calls(http, body, head, generator)
        self._log.write(calls)
        merged = MergedStreams(await generator.start_all(calls))
        running = self._live.tracked((head.id, head.name), merged)

        async def answer() -> CompletionFormat:
            pairs = zip(merged.streams, calls, strict=True)
            prompts = [await _prompt_view(body, stream, call, generator) for stream, call in pairs]
            return CompletionFormat(body, head, usage, prompts, tokens_as_ids=self._tokens_as_ids)

        async def chunks() -> AsyncGenerator[bytes, None]:
            async with aclosing(merged.deltas()) as deltas:
                async for chunk in (await answer()).chunks(deltas):
                    yield chunk

        if body.stream:
            return EventStream(chunks(), running)
        async with running:
            results = await while_connected(http.receive, collect(merged))
            return _json_text((await answer()).whole(results))

    async def chat(self, http: Request) -> Response:
        body = await self._read(http, ChatRequest)
        generator = await self._services.generator(body.model)
        usage = usage_policy(body.stream_options, stream=body.stream, config=self._config.api)
        head = self._head(http, body, "chatcmpl-", generator)
        chat = await self._chat_call(http, body, head, generator)
        self._log.write([chat.generation])
        merged = MergedStreams([await generator.start(chat.generation)])
        running = self._live.tracked((head.id, head.name), merged)
        (stream,) = merged.streams
        answer = ChatFormat(
            body,
            head,
            usage,
            PromptView(stream, chat.prompt),
            answer_role(body, self._config.api.response_role),
            plan=chat.plan,
            reader=partial(generator.answer_reader, chat.plan, stream.prompt_ids),
            tokens_as_ids=self._tokens_as_ids,
        )

        if body.stream:
            return EventStream(merged.chunks(answer.chunks), running)
        async with running:
            results = await while_connected(http.receive, collect(merged))
            return _json_text(answer.whole(results[0]))

    async def render_completion(self, http: Request) -> Response:
        """The token requests of a completion, one a prompt, in place of its answer."""
        body = await self._read(http, CompletionRequest)
        generator = await self._services.generator(body.model)
        head = self._head(http, body, "cmpl-", generator)
        calls = _completion_calls(http, body, head, generator)
        prepared = await generator.prepare_all(calls)
        pairs = zip(calls, prepared, strict=True)
        return _json_text(encode([token_request(body, call, ready, model=head.model) for call, ready in pairs]))

    async def render_chat(self, http: Request) -> Response:
        """The token request of a chat, in place of its answer."""
        body = await self._read(http, ChatRequest)
        generator = await self._services.generator(body.model)
        head = self._head(http, body, "chatcmpl-", generator)
        call = (await self._chat_call(http, body, head, generator)).generation
        (prepared,) = await generator.prepare_all([call])
        return _json(token_request(body, call, prepared, model=head.model))

    async def tokenize(self, http: Request) -> Response:
        body = await self._read(http, TokenizeRequest)
        model = await self._services.loaded(body.model)
        return _json(await tokenize(body, model, self._config.api))

    async def detokenize(self, http: Request) -> Response:
        body = await self._read(http, DetokenizeRequest)
        model = await self._services.loaded(body.model)
        return _json(Detokenized(prompt=await model.detokenize(body.tokens)))

    async def tokenizer_info(self, http: Request) -> Response:
        model = await self._services.loaded(http.query_params.get("model"))
        return _json_text(encode(model.tokenizer.info()))

    async def _read(self, http: Request, schema: type[B]) -> B:
        body = await read_body(http, schema)
        self._fields.check(body)
        return body

    async def _chat_call(self, http: Request, body: ChatRequest, head: Head, generator: Generator) -> ChatCall:
        priority = http.headers.get(PRIORITY_HEADER)
        return await chat_call(body, generator, self._config.api, request_id=head.id, priority_header=priority)

    def _head(self, http: Request, body: GenerationBody, prefix: str, generator: Generator) -> Head:
        name = request_id(http, body.request_id)
        return Head(
            id=prefix + name,
            name=name,
            created=int(time.time()),
            model=generator.model_name,
            fingerprint=self._fingerprints[generator.model_name],
        )


def _completion_calls(http: Request, body: CompletionRequest, head: Head, generator: Generator) -> list[Generation]:
    priority = http.headers.get(PRIORITY_HEADER)
    return generations(body, generator.defaults, request_id=head.id, priority_header=priority)


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


def _fingerprint(config: ServedModelConfig) -> str:
    """`headrace-<version>-<8 hex digits>`: changes when what decides the tokens does."""
    engine = config.engine
    precision = (engine.dtype, engine.quantization, engine.kv_cache_dtype, engine.device, engine.kernels)
    facts = "\n".join(map(str, (config.model.model, config.model.revision, *precision)))
    return f"headrace-{__version__}-{hashlib.blake2b(facts.encode(), digest_size=4).hexdigest()}"


def _json(body: Wire) -> Response:
    return _json_text(encode(body))


def _json_text(text: bytes) -> Response:
    return Response(text, media_type="application/json")
