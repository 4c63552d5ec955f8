"""Embeddings, pooled outputs, classes, scores and ranks: read, translate, run, write."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, TypeVar

from fastapi import APIRouter, Request, Response

from headrace.api.body import read_body
from headrace.api.call import PRIORITY_HEADER
from headrace.api.fields import Harmless, UndeclaredFields
from headrace.api.live import LiveRequests
from headrace.api.openapi import json_body
from headrace.api.pooling import answer
from headrace.api.pooling.answer import Head
from headrace.api.pooling.call import Sender, given_inputs, pooling, pooling_task, scoring, use_activation
from headrace.api.pooling.fields import NUMBERS, POOLING, RERANK, VECTORS
from headrace.api.pooling.pairs import rerank_pair, score_pairs
from headrace.api.pooling.schema import (
    ClassifyRequest,
    EmbeddingRequest,
    InputBody,
    PairBody,
    PooledBody,
    PoolingRequest,
    RerankRequest,
    ScoreRequest,
)
from headrace.api.pooling.vectors import VectorFormat
from headrace.api.pooling.wire import EmbeddingItem, PoolingItem
from headrace.api.pooling.work import answered
from headrace.api.request_ids import request_id
from headrace.api.request_log import RequestLog
from headrace.config.sections import ServeConfig
from headrace.core.errors import BadRequest
from headrace.core.pooling import PoolingParams, PoolingTask
from headrace.service import Conversation, Pooled, Scores, Services

if TYPE_CHECKING:
    from headrace.service.pooler import Pooler

B = TypeVar("B", bound=PooledBody)

SCHEMAS = (EmbeddingRequest, PoolingRequest, ClassifyRequest, ScoreRequest, RerankRequest)

_REFUSED: Mapping[type[PooledBody], Mapping[str, Harmless]] = {
    EmbeddingRequest: VECTORS,
    PoolingRequest: POOLING,
    ClassifyRequest: NUMBERS,
    ScoreRequest: NUMBERS,
    RerankRequest: RERANK,
}
"""What is refused in which body."""

_SIMILARITY_TASKS = (PoolingTask.EMBED, PoolingTask.TOKEN_EMBED)
_PAIR_TASKS = (PoolingTask.CLASSIFY, *_SIMILARITY_TASKS)
"""Those that give scores of pairs, best first."""


def pooling_router(services: Services, config: ServeConfig, live: LiveRequests) -> APIRouter:
    family = PoolingFamily(services, config, live)
    router = APIRouter(tags=["Pooling"])
    for path, schema, handler in (
        ("/v1/embeddings", EmbeddingRequest, family.embed),
        ("/pooling", PoolingRequest, family.pool),
        ("/classify", ClassifyRequest, family.classify),
        ("/score", ScoreRequest, family.score),
        ("/v1/score", ScoreRequest, family.score),
        ("/rerank", RerankRequest, family.rerank),
        ("/v1/rerank", RerankRequest, family.rerank),
        ("/v2/rerank", RerankRequest, family.rerank),
    ):
        router.post(path, openapi_extra=json_body(schema))(handler)
    return router


class PoolingFamily:
    """The handlers. They hold nothing of a request."""

    def __init__(self, services: Services, config: ServeConfig, live: LiveRequests) -> None:
        self._services = services
        self._config = config
        self._live = live
        self._fields = {
            schema: UndeclaredFields(refused, strict=config.api.strict_requests) for schema, refused in _REFUSED.items()
        }
        self._log = RequestLog(enabled=config.logging.enable_log_requests, longest=config.logging.max_log_len)

    async def embed(self, http: Request) -> Response:
        body = await self._read(http, EmbeddingRequest)
        pooler = await self._services.pooler(body.model, PoolingTask.EMBED)
        params = PoolingParams(task=PoolingTask.EMBED, use_activation=use_activation(body), dimensions=body.dimensions)
        head, pooled = await self._pool(http, body, pooler, params, "embd-")
        how = VectorFormat(body)
        return await answer.vectors(
            head, pooled, how, lambda index, each: EmbeddingItem(index=index, embedding=how.written(each))
        )

    async def pool(self, http: Request) -> Response:
        """Whatever the model makes of an input: a vector, scores, or either for each token."""
        body = await self._read(http, PoolingRequest)
        pooler = await self._services.pooler(body.model, *PoolingTask)
        params = PoolingParams(task=pooling_task(body.task, pooler.tasks), use_activation=use_activation(body))
        head, pooled = await self._pool(http, body, pooler, params, "pooling-")
        how = VectorFormat(body)
        return await answer.vectors(
            head, pooled, how, lambda index, each: PoolingItem(index=index, data=how.written(each))
        )

    async def classify(self, http: Request) -> Response:
        body = await self._read(http, ClassifyRequest)
        pooler = await self._services.pooler(body.model, PoolingTask.CLASSIFY)
        params = PoolingParams(task=PoolingTask.CLASSIFY, use_activation=use_activation(body))
        head, pooled = await self._pool(http, body, pooler, params, "classify-")
        return answer.classes(head, pooled, pooler.labels)

    async def score(self, http: Request) -> Response:
        body = await self._read(http, ScoreRequest)
        pooler = await self._pair_pooler(body.model)
        queries, documents = score_pairs(body, pooler.model_name)
        head, found = await self._score(http, body, pooler, queries, documents)
        return answer.scores(head, found)

    async def rerank(self, http: Request) -> Response:
        """The documents in the order of how well they answer the query."""
        body = await self._read(http, RerankRequest)
        if body.top_n < 0:
            raise BadRequest(f"top_n must be at least 0, got {body.top_n}.", parameter="top_n", value=body.top_n)
        pooler = await self._pair_pooler(body.model)
        query, documents = rerank_pair(body, pooler.model_name)
        head, found = await self._score(http, body, pooler, [query], documents)
        return answer.ranking(head, found, documents, body.top_n)

    async def _read(self, http: Request, schema: type[B]) -> B:
        body = await read_body(http, schema)
        self._fields[schema].check(body)
        return body

    async def _pair_pooler(self, name: str | None) -> Pooler:
        pooler = await self._services.pooler(name, *_PAIR_TASKS)
        if name or pooler.can_score:
            return pooler
        return await self._services.pooler(None, *_SIMILARITY_TASKS)  # a classifier of many classes scores no pairs

    async def _pool(
        self, http: Request, body: InputBody, pooler: Pooler, params: PoolingParams, prefix: str
    ) -> tuple[Head, list[Pooled]]:
        name = request_id(http, body.request_id)
        head = _head(prefix + name, pooler)
        given = given_inputs(body, self._config.api)
        conversations = [each for each in given if isinstance(each, Conversation)]
        inputs = [each for each in given if not isinstance(each, Conversation)]
        if conversations:
            inputs = await asyncio.gather(*map(pooler.render, conversations))
        call = pooling(body, inputs, params, _sender(http, head), rendered=bool(conversations))
        self._log.write_inputs(call.request_id, call.inputs, call.params)
        return head, await answered(http, self._live, (head.id, name), pooler.pool(call))

    async def _score(
        self, http: Request, body: PairBody, pooler: Pooler, queries: list[str], documents: list[str]
    ) -> tuple[Head, Scores]:
        name = request_id(http, body.request_id)
        head = _head("score-" + name, pooler)
        call = scoring(body, queries, documents, _sender(http, head))
        self._log.write_inputs(call.request_id, [*queries, *documents], "score")
        return head, await answered(http, self._live, (head.id, name), pooler.score(call))


def _head(answer_id: str, pooler: Pooler) -> Head:
    return Head(id=answer_id, created=int(time.time()), model=pooler.model_name)


def _sender(http: Request, head: Head) -> Sender:
    return Sender(head.id, http.headers.get(PRIORITY_HEADER))
