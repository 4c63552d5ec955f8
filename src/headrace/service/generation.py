"""The generator: from a call in text or ids to a stream of deltas."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.config.sections import LimitsConfig
from headrace.config.structured import DEFAULTS, StructuredOutputsConfig
from headrace.core.errors import BadRequest
from headrace.core.request import Request
from headrace.runtime.client import EngineClient, EngineState
from headrace.service.admission import Admission, Ticket
from headrace.service.answers import NO_FORMATS, AnswerFormats, AnswerPlan, AnswerReader
from headrace.service.beams import beam_search
from headrace.service.constraints import Constraints
from headrace.service.observer import RequestObserver
from headrace.service.prompts import PreparedPrompt, PromptPreparer
from headrace.service.rendering import Renderer
from headrace.service.stream import GenerationStream
from headrace.service.timing import RequestClock
from headrace.service.tokenization import Tokenization, required_tokenizer
from headrace.service.types import Conversation, Generation
from headrace.service.workers import Workers
from headrace.text import ChatTemplate, Tokenizer

_SEED_BITS = 62
"""Choice c draws with seed + c, which must stay an int64."""


class Generator:
    """Generates text with one loaded model. Make it once the engine has started; use it from one event loop.

    `tokenizer` None: this server speaks only token ids, and whatever needs text is refused. `template` None: the model
    has no chat template, and every conversation is refused. `defaults` are the sampling
    values of the generation config, for protocol families to fill in where a caller is silent; its `max_new_tokens` is
    applied here, to a `SamplingParams` whose `max_tokens` is None. `eos_token_ids` are all ids that end an answer.
    `formats` say how answers mark tool calls and reasoning, for the families that take answers apart;
    `structured_outputs` is what holds for the form of all answers.
    `seed` starts the sequence of seeds that unseeded calls draw. `model_name` is for responses and messages.
    """

    def __init__(
        self,
        engine: EngineClient,
        tokenizer: Tokenizer | None,
        template: ChatTemplate | None,
        *,
        limits: LimitsConfig,
        seed: int,
        defaults: Mapping[str, Any],
        eos_token_ids: Sequence[int],
        metrics: RequestObserver | None,
        model_name: str,
        formats: AnswerFormats = NO_FORMATS,
        structured_outputs: StructuredOutputsConfig = DEFAULTS,
    ) -> None:
        info = engine.info
        self.model_name = model_name
        self.info = info
        self._tokenizer = tokenizer
        self.template = template
        self.defaults = dict(defaults)
        self.formats = formats
        self.structured_outputs = structured_outputs
        self.max_model_len = info.max_model_len
        self._engine = engine
        self._limits = limits
        self._metrics = metrics
        self._preparer = PromptPreparer(
            tokenizer,
            vocab_size=info.vocab_size,
            max_model_len=info.max_model_len,
            limits=limits,
            eos_token_ids=eos_token_ids,
            max_new_tokens=self.defaults.get("max_new_tokens"),
        )
        self._workers = Workers("headrace-text")
        self._constraints = Constraints(
            engine,
            tokenizer,
            self._workers,
            vocab_size=info.vocab_size,
            eos_token_ids=self._preparer.eos_token_ids,
            config=structured_outputs,
        )
        self._renderer = Renderer(
            template,
            model_name=model_name,
            timeout=limits.chat_template_render_timeout,
            special_tokens=None if tokenizer is None else tokenizer.special_tokens,
        )
        self._tokenization = Tokenization(tokenizer, self._workers)
        self._admission = Admission(limits, metrics)
        self._seeds = random.Random(seed)
        self._request_numbers = itertools.count()

    @property
    def tokenizer(self) -> Tokenizer:
        """Raises `NotPermitted` on a server that speaks only token ids."""
        return required_tokenizer(self._tokenizer, parameter=None)

    @property
    def engine_state(self) -> EngineState:
        return self._engine.state

    async def start(self, call: Generation) -> GenerationStream:
        """Hand one call to the engine. The stream must be entered at once.

        Raises `BadRequest` or `ContextOverflow` naming the parameter, `Overloaded` if the queue is full, `NotReady`
        or `EngineDead` if no engine runs.
        """
        (stream,) = await self.start_all([call])
        return stream

    async def start_all(self, calls: Sequence[Generation]) -> list[GenerationStream]:
        """Hand over the prompts of one request: all of them, or none if one is refused. Raises as `start`."""
        arrival = time.monotonic()
        prepared = await self.prepare_all(calls)
        tickets = self._admission.admit(
            [
                (call.sampling.num_candidates, len(prompt.prompt_ids))
                for call, prompt in zip(calls, prepared, strict=True)
            ]
        )
        streams: list[GenerationStream] = []
        try:
            for call, prompt, ticket in zip(calls, prepared, tickets, strict=True):
                streams.append(self._submit(call, prompt, ticket, arrival))
        except BaseException:
            for stream in streams:
                stream.close()
            for ticket in tickets:
                ticket.close()
            raise
        return streams

    async def prepare_all(self, calls: Sequence[Generation]) -> list[PreparedPrompt]:
        """What the engine gets of the prompts of one request. Raises the `CallerError`s of `start`."""
        if len(calls) > (most := self._limits.max_completion_prompts):
            raise BadRequest(
                f"prompt: at most {most} prompts are allowed in one request, got {len(calls)}.", parameter="prompt"
            )
        seeds = [self._seeds.getrandbits(_SEED_BITS) for _ in calls]
        return await asyncio.gather(*(self._prepare(call, seed) for call, seed in zip(calls, seeds, strict=True)))

    async def _prepare(self, call: Generation, seed: int) -> PreparedPrompt:
        constraint = call.sampling.structured_outputs
        grammar = None if constraint is None else await self._constraints.compile(constraint)
        return await self._workers.run(self._preparer.prepare, call, seed, grammar)

    async def render(self, conversation: Conversation) -> str:
        """The conversation in the model's chat template. Raises `BadRequest` if that fails or takes too long."""
        required_tokenizer(self._tokenizer, parameter="messages")
        return await self._renderer.render(conversation)

    def answer_reader(self, plan: AnswerPlan, prompt_ids: Sequence[int]) -> AnswerReader:
        """Takes one choice of an answer to this prompt apart."""
        return plan.reader(prompt_ids, self._tokenizer)

    async def tokenize(self, text: str, *, add_special_tokens: bool) -> list[int]:
        return await self._tokenization.tokenize(text, add_special_tokens=add_special_tokens)

    async def detokenize(self, ids: Sequence[int]) -> str:
        """The text of `ids`, special tokens kept, none for ids beyond the vocabulary; `BadRequest` for negative ids."""
        return await self._tokenization.detokenize(ids)

    def close(self) -> None:
        """End the threads. Generations that run are not touched."""
        self._workers.close()
        self._constraints.close()
        self._renderer.close()

    def _submit(self, call: Generation, prompt: PreparedPrompt, ticket: Ticket, arrival: float) -> GenerationStream:
        sampling = call.sampling
        request = Request(
            request_id=f"{call.request_id}-{next(self._request_numbers)}",
            prompt_ids=prompt.prompt_ids,
            sampling=prompt.sampling,
            n=sampling.n if sampling.use_beam_search else sampling.num_candidates,
            priority=call.priority,
            arrival_time=arrival,
            cache_salt=call.cache_salt,
            beam=beam_search(sampling, shown=call.show_beams) if sampling.use_beam_search else None,
        )
        clock = None
        if self._metrics is not None:
            clock = RequestClock(
                self._metrics,
                arrival=arrival,
                n=request.n,
                max_tokens=sampling.max_tokens,
                prompt_tokens=len(request.prompt_ids),
            )
        return GenerationStream(
            self._engine.submit(request),
            request.prompt_ids,
            sampling,
            tokenizer=self.tokenizer if sampling.detokenize else None,
            workers=self._workers,
            ticket=ticket,
            clock=clock,
        )
