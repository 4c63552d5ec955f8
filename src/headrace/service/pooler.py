"""The pooler: from texts, ids and pairs to vectors and scores."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.config.sections import LimitsConfig
from headrace.core.errors import BadRequest
from headrace.core.pooling import PoolingTask
from headrace.runtime.client import EngineClient, EngineState
from headrace.service.observer import RequestObserver
from headrace.service.pooling_inputs import InputPreparer
from headrace.service.pooling_run import PoolingIntake
from headrace.service.pooling_types import OnProgress, Pooled, Pooling, Scores, Scoring
from headrace.service.rendering import Renderer
from headrace.service.scorer import Scorer, scoring_task
from headrace.service.tokenization import Tokenization, required_tokenizer
from headrace.service.types import Conversation
from headrace.service.workers import Workers
from headrace.text import ChatTemplate, Tokenizer

_PREPARED_IN_PLACE = 4_000
"""Characters and ids in all: a way to another thread and back takes longer than to tokenize these."""


class Pooler:
    """Pools with one loaded model. Make it once the engine has started; use it from one event loop.

    `tokenizer` None: this server speaks only token ids, and whatever needs text is refused. `template` None: the model
    has no chat template, and every conversation is refused. `score_template` makes a prompt of a query and a document,
    for decoders that were trained to judge such prompts. `model_name` is for responses and messages.
    """

    def __init__(
        self,
        engine: EngineClient,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | None,
        *,
        score_template: ChatTemplate | None,
        limits: LimitsConfig,
        metrics: RequestObserver | None,
        model_name: str,
    ) -> None:
        info = engine.info
        if info.pooling is None:
            raise ValueError(f"{model_name} generates; it does not pool.")
        self.model_name = model_name
        self.template = template
        self.max_model_len = info.max_model_len
        self.info = info
        self._pooling = info.pooling
        self._tokenizer = tokenizer
        self._engine = engine
        self._preparer = InputPreparer(
            tokenizer, info.pooling, vocab_size=info.vocab_size, max_model_len=info.max_model_len
        )
        self._intake = PoolingIntake(engine, limits, metrics)
        self._workers = Workers("headrace-text")
        self._tokenization = Tokenization(tokenizer, self._workers)
        timeout = limits.chat_template_render_timeout
        self._renderer = Renderer(
            template,
            model_name=model_name,
            timeout=timeout,
            special_tokens=None if tokenizer is None else tokenizer.special_tokens,
        )
        self._score_renderer: Renderer | None = None
        if score_template is not None and info.pooling.is_causal:
            self._score_renderer = Renderer(score_template, model_name=model_name, timeout=timeout)
        self._scorer = Scorer(
            info.pooling, self._preparer, self._intake, self._workers, self._score_renderer, model_name=model_name
        )

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises `NotPermitted` on a server that speaks only token ids."""
        return required_tokenizer(self._tokenizer, parameter=None)

    @property
    def engine_state(self) -> EngineState:
        return self._engine.state

    @property
    def tasks(self) -> tuple[PoolingTask, ...]:
        """Those that the model can do, its default first."""
        return self._pooling.tasks

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the model's classes, "" for one without; empty if it makes no scores."""
        return self._pooling.labels

    @property
    def can_score(self) -> bool:
        """Whether pairs can be scored."""
        return scoring_task(self._pooling) is not None

    async def pool(self, call: Pooling, on_progress: OnProgress | None = None) -> list[Pooled]:
        """What comes of each input, in their order. Cancelling it ends all of them.


        Raises `BadRequest` or `ContextOverflow` naming the parameter, `Overloaded` if the queue is full, `EngineError`
        if an input fails, `NotReady` or `EngineDead` if no engine runs.
        """
        self._pooling.check(call.params)
        if not call.inputs:
            raise BadRequest("You must pass at least one prompt.", parameter="input", value=[])
        if sum(map(len, call.inputs)) > _PREPARED_IN_PLACE:
            inputs = await self._workers.run(self._preparer.prepare, call.inputs, call.encoding)
        else:
            inputs = self._preparer.prepare(call.inputs, call.encoding)
        return await self._intake.run(inputs, call.params, call, on_progress)

    async def score(self, call: Scoring, on_progress: OnProgress | None = None) -> Scores:
        """A score for each pair. Cancelling it ends all of them. Raises as `pool`."""
        return await self._scorer.score(call, on_progress)

    async def render(self, conversation: Conversation) -> str:
        """The conversation in the model's chat template. Raises `BadRequest` if that fails or takes too long."""
        required_tokenizer(self._tokenizer, parameter="messages")
        return await self._renderer.render(conversation)

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return await self._tokenization.tokenize(text, add_special_tokens=add_special_tokens)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept, none for ids beyond the vocabulary; `BadRequest` for negative ids."""
        return await self._tokenization.detokenize(ids)

    def close(self) -> None:
        """End the threads. What runs is not touched."""
        self._workers.close()
        self._renderer.close()
        if self._score_renderer is not None:
            self._score_renderer.close()
