"""Scores of pairs of texts: by a model that reads both at once, or by how alike their vectors are."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from headrace.core.errors import BadRequest, Unsupported
from headrace.core.pooling import PoolingInfo, PoolingParams, PoolingTask
from headrace.service.pooling_inputs import InputPreparer
from headrace.service.pooling_run import PoolingIntake
from headrace.service.pooling_types import OnProgress, Pooled, PreparedInput, Scores, Scoring
from headrace.service.rendering import Renderer
from headrace.service.similarity import cosine, late_interaction
from headrace.service.types import Conversation
from headrace.service.workers import Workers

_SIMILARITY = {PoolingTask.EMBED: cosine, PoolingTask.TOKEN_EMBED: late_interaction}
"""How two texts that are read apart are compared, by what is made of them."""


def scoring_task(info: PoolingInfo) -> PoolingTask | None:
    """The task by which a model scores pairs: of those that it can do the first; None if it cannot."""
    if PoolingTask.CLASSIFY in info.tasks:
        return PoolingTask.CLASSIFY if info.num_labels == 1 else None
    return next((task for task in info.tasks if task in _SIMILARITY), None)


class Scorer:
    """Scores with one model. `renderer` makes a prompt of a pair, for decoders that were trained to judge such."""

    def __init__(
        self,
        info: PoolingInfo,
        preparer: InputPreparer,
        intake: PoolingIntake,
        workers: Workers,
        renderer: Renderer | None,
        *,
        model_name: str,
    ) -> None:
        self._info = info
        self._preparer = preparer
        self._intake = intake
        self._workers = workers
        self._renderer = renderer
        self._model_name = model_name

    async def score(self, call: Scoring, on_progress: OnProgress | None) -> Scores:
        """One score for each pair. Cancelling it ends all of them. Raises as `Pooler.pool`."""
        _check_lengths(call)
        task = scoring_task(self._info)
        if task is None:
            raise BadRequest(
                f"{self._model_name} cannot score pairs: it has {self._info.num_labels} classes. A model with one "
                "class can, or one that embeds.",
                parameter="model",
            )
        if call.template_kwargs and (self._renderer is None or task is not PoolingTask.CLASSIFY):
            name = next(iter(call.template_kwargs))
            raise Unsupported(
                f"{name} is for decoders that score a prompt made of the pair; that takes a --chat-template for them.",
                parameter=name,
            )
        params = PoolingParams(task=task, use_activation=call.use_activation)
        if task is not PoolingTask.CLASSIFY:
            return await self._compare(call, params, on_progress)
        inputs = await self._pairs(call)
        pooled = await self._intake.run(inputs, params, call, on_progress)
        return Scores(
            scores=[each.values()[0] for each in pooled],
            prompt_ids=[each.ids for each in inputs],
            prompt_tokens=sum(len(each.ids) for each in inputs),
        )

    async def _pairs(self, call: Scoring) -> list[PreparedInput]:
        if self._renderer is None and not self._info.is_causal:
            return await self._workers.run(self._preparer.prepare_pairs, call)
        pairs = await self._workers.run(self._cut_pairs, call)
        texts = await self._prompts(pairs, call)
        return await self._workers.run(self._preparer.prepare, texts, call.encoding)

    def _cut_pairs(self, call: Scoring) -> list[tuple[str, str]]:
        queries = [self._preparer.cut_text(query, call.max_tokens_per_query) for query in call.queries]
        documents = [self._preparer.cut_text(document, call.max_tokens_per_doc) for document in call.documents]
        return list(zip(_spread(queries, len(documents)), documents, strict=True))

    async def _prompts(self, pairs: Sequence[tuple[str, str]], call: Scoring) -> list[str]:
        if self._renderer is None:
            return [query + document for query, document in pairs]
        return await asyncio.gather(
            *(
                self._renderer.render(
                    Conversation(
                        messages=[{"role": "query", "content": query}, {"role": "document", "content": document}],
                        add_generation_prompt=False,
                        chat_template_kwargs=call.template_kwargs,
                    )
                )
                for query, document in pairs
            )
        )

    async def _compare(self, call: Scoring, params: PoolingParams, on_progress: OnProgress | None) -> Scores:
        """Texts that are the same are read once, but all of them count."""
        ids = await self._workers.run(self._apart, call)
        distinct = list(dict.fromkeys(ids))
        inputs = [PreparedInput(list(each)) for each in distinct]
        pooled = await self._intake.run(inputs, params, call, on_progress)
        by_ids = dict(zip(distinct, pooled, strict=True))
        queries = _spread(ids[: len(call.queries)], len(call.documents))
        pairs = list(zip(queries, ids[len(call.queries) :], strict=True))
        compared = [(by_ids[query], by_ids[document]) for query, document in pairs]
        return Scores(
            scores=await self._workers.run(_similarities, compared, params.task),
            prompt_ids=[[*query, *document] for query, document in pairs],
            prompt_tokens=sum(map(len, ids)),
        )

    def _apart(self, call: Scoring) -> list[tuple[int, ...]]:
        """The ids of all queries, then of all documents."""
        queries = self._preparer.prepare(call.queries, call.encoding, most=call.max_tokens_per_query)
        documents = self._preparer.prepare(call.documents, call.encoding, most=call.max_tokens_per_doc)
        return [tuple(each.ids) for each in (*queries, *documents)]


def _similarities(pairs: Sequence[tuple[Pooled, Pooled]], task: PoolingTask) -> list[float]:
    return [_SIMILARITY[task](query, document) for query, document in pairs]


def _spread(queries: list, count: int) -> list:
    """One query for each of `count` documents, if there is but one."""
    return queries * count if len(queries) == 1 else queries


def _check_lengths(call: Scoring) -> None:
    if not call.queries or not call.documents:
        raise BadRequest("At least one query and one document must be given.", parameter="documents")
    if len(call.queries) not in (1, len(call.documents)):
        raise BadRequest("Input lengths must be either 1:1, 1:N or N:N", parameter="documents")
    for name, most in (
        ("max_tokens_per_query", call.max_tokens_per_query),
        ("max_tokens_per_doc", call.max_tokens_per_doc),
    ):
        if most < 0:
            raise BadRequest(f"{name} must be at least 0, got {most}.", parameter=name, value=most)
