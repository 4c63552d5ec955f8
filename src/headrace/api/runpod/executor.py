"""Runs jobs: reads what a job's input asks for, has it done, and emits what comes."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any

from headrace.api.errors import public_message
from headrace.api.fields import UndeclaredFields
from headrace.api.live import LiveRequests
from headrace.api.openai.routes import OpenAIFamily
from headrace.api.pooling.routes import PoolingFamily
from headrace.api.runpod.endpoints import Endpoints
from headrace.api.runpod.engine_routes import EngineRoutes
from headrace.api.runpod.growth import ChunkGrowth
from headrace.api.runpod.inputs import InputDefaults, NativeJob, RouteJob, read_input, unknown_keys
from headrace.api.runpod.native import NativeWriter
from headrace.config.sections import ServeConfig
from headrace.core.errors import EngineDead, EngineError, NotReady, Overloaded
from headrace.jobs import Emit, Job
from headrace.service import Conversation, EngineState, Generation, Services

_LOOK_AGAIN_SECONDS = 0.1
_LONGEST_PAUSE = 2.0


class JobExecutor:
    """The one function the job queue runs jobs with. `template_kwargs`: template variables of the server."""

    def __init__(
        self,
        services: Services,
        endpoints: Endpoints,
        routes: EngineRoutes,
        defaults: InputDefaults,
        fields: UndeclaredFields,
        template_kwargs: Mapping[str, Any],
    ) -> None:
        self._services = services
        self._endpoints = endpoints
        self._routes = routes
        self._defaults = defaults
        self._fields = fields
        self._template_kwargs = template_kwargs

    async def execute(self, job: Job, given: Mapping[str, Any], emit: Emit) -> None:
        """Emit the output of one attempt, chunk by chunk; see `headrace.jobs.Execute`.

        A queue of the engine that is full, or an engine that is being started again, is waited for.
        """
        asked = read_input(given, self._defaults)
        model = self._endpoints.model_of(job.endpoint)
        if isinstance(asked, RouteJob):
            asked = asked.for_model(model)
            model = asked.model
        for name in unknown_keys(given):
            self._fields.unknown(name)
        pause = _LOOK_AGAIN_SECONDS
        while True:
            await self._engine_runs(model)
            try:
                return await self._run(asked, model, job.id, emit)
            except (Overloaded, NotReady):  # raised before anything was generated
                await asyncio.sleep(pause)
                pause = min(2 * pause, _LONGEST_PAUSE)
            except EngineError as error:
                raise EngineError(public_message(error)) from error

    async def _run(self, asked: NativeJob | RouteJob, model: str | None, request_id: str, emit: Emit) -> None:
        if isinstance(asked, NativeJob):
            await self._answer(asked, model, request_id, emit)
        else:
            await self._call(asked, request_id, emit)

    async def _engine_runs(self, name: str | None) -> None:
        model = self._services.find(name) if name else self._services.models[0]
        while (state := model.state) in (EngineState.LOADING, EngineState.RESTARTING):
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        if state is EngineState.DEAD:
            raise EngineDead("The engine is not started again.")

    async def _answer(self, asked: NativeJob, model: str | None, request_id: str, emit: Emit) -> None:
        generator = await self._services.generator(model)
        prompt = asked.prompt
        if not isinstance(prompt, str):
            conversation = Conversation(messages=prompt, chat_template_kwargs=self._template_kwargs)
            prompt = await generator.render(conversation)
        call = Generation(
            prompt=prompt,
            sampling=asked.sampling,
            request_id=request_id,
            add_special_tokens=prompt is asked.prompt,  # a template brings its own
            truncate_prompt_tokens=asked.truncate_prompt_tokens,
        )
        async with await generator.start(call) as stream:
            writer = NativeWriter(
                n=asked.sampling.n, prompt_tokens=len(stream.prompt_ids), logprobs=asked.sampling.logprobs
            )
            if asked.growth is None:
                await emit(await writer.whole(stream))
                return
            async with aclosing(writer.chunks(stream, asked.growth)) as chunks:
                async for chunk in chunks:
                    await emit(chunk)

    async def _call(self, asked: RouteJob, request_id: str, emit: Emit) -> None:
        async with aclosing(self._routes.run(asked, request_id, self._defaults.growth)) as outputs:
            async for output in outputs:
                await emit(output)


def job_executor(services: Services, config: ServeConfig) -> JobExecutor:
    """The executor of a server."""
    runpod = config.runpod
    defaults = InputDefaults(
        max_tokens=runpod.job_max_tokens,
        growth=ChunkGrowth(
            largest=runpod.job_batch_size,
            smallest=runpod.job_min_batch_size,
            factor=runpod.job_batch_size_growth_factor,
        ),
    )
    endpoints = Endpoints([model.config for model in services.models])
    live = LiveRequests()
    routes = EngineRoutes(OpenAIFamily(services, config, live), PoolingFamily(services, config, live))
    fields = UndeclaredFields({}, strict=config.api.strict_requests)
    return JobExecutor(services, endpoints, routes, defaults, fields, config.api.default_chat_template_kwargs)
