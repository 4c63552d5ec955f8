"""The Python API: a model in this process, without a server.

llm = LLM("smollm2")
for output in llm.generate(["The capital of France is"], SamplingParams(temperature=0)):
    print(output.outputs[0].text)

for output in LLM("minilm").embed(["A headrace brings water to the wheel."]):
    print(output.outputs.embedding)
"""

from __future__ import annotations

import asyncio
import itertools
import sys
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from headrace.config.sections import LimitsConfig, ModelConfig
from headrace.core.errors import BadRequest, EngineDead
from headrace.core.pooling import PoolingParams, PoolingTask
from headrace.core.sampling import SamplingParams
from headrace.loaded_model import LoadedModel, read_engine_config
from headrace.outputs import (
    ClassificationOutput,
    ClassificationRequestOutput,
    EmbeddingOutput,
    EmbeddingRequestOutput,
    PoolingOutput,
    PoolingRequestOutput,
    RequestOutput,
    ScoringOutput,
    ScoringRequestOutput,
    completion_output,
    position_table,
)
from headrace.progress import Bar, GenerationProgress, generation_progress, pooling_progress
from headrace.prompts import Prompt, listed_conversations, listed_prompts, listed_texts, prompt_content
from headrace.service import (
    Conversation,
    Delta,
    Encoding,
    Generation,
    GenerationStream,
    Message,
    Pooled,
    Pooling,
    Scores,
    Scoring,
)
from headrace.service.pooler import Pooler
from headrace.text import Tokenizer


class LLM:
    """A loaded model that answers many prompts at once: a generator `generate` and `chat`, a model that pools the
    others.

    `model` is a known name, a folder, a .gguf file or a Hub id. `tokenizer`, `revision`, `chat_template`,
    `generation_config`, `override_generation_config` and `structured_outputs_config` are as the flags of
    `headrace serve`; so are `engine_options`, the fields of `EngineConfig` (`dtype`, `max_model_len`, `max_num_seqs`,
    …). The same `seed` and the same calls give the same answers. Raises `StartupError` if the model cannot be loaded,
    `ConfigError` (one of them) for an option that is unknown or makes no sense. Calls are to be made from one thread at
    a time.

    The model is freed by `close`, at the end of a `with` block, or when the interpreter ends.
    """

    def __init__(
        self,
        model: str,
        *,
        tokenizer: str | None = None,
        revision: str | None = None,
        chat_template: str | None = None,
        generation_config: str = "auto",
        override_generation_config: Mapping[str, Any] | None = None,
        structured_outputs_config: Mapping[str, Any] | None = None,
        max_logprobs: int = 20,
        seed: int = 0,
        **engine_options: Any,
    ) -> None:
        engine_config = read_engine_config(engine_options)
        # One call may bring any number of prompts: there is nobody here to protect from it.
        limits = LimitsConfig(max_logprobs=max_logprobs, max_completion_prompts=sys.maxsize)
        model_config = ModelConfig(
            model=model,
            tokenizer=tokenizer,
            revision=revision,
            chat_template=chat_template,
            generation_config=generation_config,
            override_generation_config=dict(override_generation_config or {}),
            structured_outputs_config=dict(structured_outputs_config or {}),
        )
        self._model = LoadedModel(model_config, engine_config, limits, seed)
        self._request_numbers = itertools.count()
        self._shut_down = weakref.finalize(self, self._model.close)

    def generate(
        self,
        prompts: Prompt | Sequence[Prompt],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Bar = True,
    ) -> list[RequestOutput]:
        """Continue each prompt; the outputs are in the order of the prompts. A list of ids is one prompt.

        `sampling_params`: one for all, or one for each prompt; None takes `get_default_sampling_params()`.
        Raises `BadRequest` before anything runs if a prompt or its parameters make no sense.
        """
        self._check_open()
        listed = listed_prompts(prompts)
        calls = [
            self._call(prompt, sampling)
            for prompt, sampling in zip(listed, self._paired(sampling_params, len(listed)), strict=True)
        ]
        return self._model.run(self._answer(calls, use_tqdm))

    def chat(
        self,
        messages: Sequence[Message] | Sequence[Sequence[Message]],
        sampling_params: SamplingParams | Sequence[SamplingParams] | None = None,
        use_tqdm: Bar = True,
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        chat_template_kwargs: Mapping[str, Any] | None = None,
    ) -> list[RequestOutput]:
        """Answer one conversation, or each of a list of them, by the model's chat template. Raises as `generate`."""
        self._check_open()
        conversations = [
            Conversation(
                messages=conversation,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
                chat_template_kwargs=chat_template_kwargs or {},
            )
            for conversation in listed_conversations(messages)
        ]
        paired = self._paired(sampling_params, len(conversations))
        texts = self._model.run(self._render(conversations))
        calls = [
            replace(self._call(text, sampling), add_special_tokens=False)
            for text, sampling in zip(texts, paired, strict=True)
        ]
        return self._model.run(self._answer(calls, use_tqdm))

    def embed(
        self,
        prompts: Prompt | Sequence[Prompt],
        use_tqdm: Bar = True,
        *,
        dimensions: int | None = None,
        use_activation: bool | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[EmbeddingRequestOutput]:
        """A vector for each prompt, in their order. A list of ids is one prompt.

        `dimensions` keeps so many values, of models made for that. `use_activation`: whether vectors are brought to
        length 1; None: as the model has it. `truncate_prompt_tokens` keeps so many tokens; None: as many as the model
        reads. Raises `BadRequest` before anything runs if a prompt or a parameter makes no sense.
        """
        params = PoolingParams(task=PoolingTask.EMBED, use_activation=use_activation, dimensions=dimensions)
        return [
            EmbeddingRequestOutput(
                request_id=request_id,
                outputs=EmbeddingOutput(embedding=pooled.values()),
                prompt_token_ids=pooled.prompt_ids,
            )
            for request_id, pooled in self._pool(prompts, params, use_tqdm, truncate_prompt_tokens)
        ]

    def classify(
        self,
        prompts: Prompt | Sequence[Prompt],
        use_tqdm: Bar = True,
        *,
        use_activation: bool | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ClassificationRequestOutput]:
        """The probability of each class, for each prompt. Parameters and errors as for `embed`."""
        params = PoolingParams(task=PoolingTask.CLASSIFY, use_activation=use_activation)
        return [
            ClassificationRequestOutput(
                request_id=request_id,
                outputs=ClassificationOutput(probs=pooled.values()),
                prompt_token_ids=pooled.prompt_ids,
            )
            for request_id, pooled in self._pool(prompts, params, use_tqdm, truncate_prompt_tokens)
        ]

    def encode(
        self,
        prompts: Prompt | Sequence[Prompt],
        use_tqdm: Bar = True,
        *,
        pooling_task: str | None = None,
        use_activation: bool | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[PoolingRequestOutput]:
        """What `pooling_task` makes of each prompt: "embed", "classify", "token_embed" or "token_classify"; None: the
        first of them that the model can do. Parameters and errors as for `embed`.
        """
        tasks = self._model.pooler.tasks
        if pooling_task is not None and pooling_task not in tasks:
            raise BadRequest(
                f"pooling_task must be one of {', '.join(tasks)} for this model, got {pooling_task!r}.",
                parameter="pooling_task",
                value=pooling_task,
            )
        task = tasks[0] if pooling_task is None else PoolingTask(pooling_task)
        params = PoolingParams(task=task, use_activation=use_activation)
        return [
            PoolingRequestOutput(
                request_id=request_id,
                outputs=PoolingOutput(data=pooled.values()),
                prompt_token_ids=pooled.prompt_ids,
            )
            for request_id, pooled in self._pool(prompts, params, use_tqdm, truncate_prompt_tokens)
        ]

    def score(
        self,
        data_1: str | Sequence[str],
        data_2: str | Sequence[str],
        use_tqdm: Bar = True,
        *,
        use_activation: bool | None = None,
        truncate_prompt_tokens: int | None = None,
    ) -> list[ScoringRequestOutput]:
        """How well the texts of each pair go together: `data_1` has one text for all of `data_2`, or one for each.

        A cross-encoder reads both texts of a pair at once; of other models it is how alike the vectors are.
        Parameters and errors as for `embed`.
        """
        call = Scoring(
            queries=listed_texts(data_1),
            documents=listed_texts(data_2),
            request_id=self._next_id(),
            use_activation=use_activation,
            encoding=Encoding(truncate_prompt_tokens=truncate_prompt_tokens),
        )
        found = self._model.run(self._score(self._model.pooler, call, use_tqdm))
        return [
            ScoringRequestOutput(
                request_id=f"{call.request_id}-{index}", outputs=ScoringOutput(score=score), prompt_token_ids=ids
            )
            for index, (score, ids) in enumerate(zip(found.scores, found.prompt_ids, strict=True))
        ]

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation config asks for, else the built-in defaults."""
        values = dict(self._model.generator.defaults)
        if (max_tokens := values.pop("max_new_tokens", None)) is not None:
            values["max_tokens"] = max_tokens
        return SamplingParams(**values)

    def get_tokenizer(self) -> Tokenizer:
        return self._model.tokenizer

    def close(self) -> None:
        """Free the model. Any number of calls; after it, calls for answers raise `EngineDead`."""
        self._shut_down()

    def __enter__(self) -> LLM:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _check_open(self) -> None:
        if not self._shut_down.alive:
            raise EngineDead("This LLM has been closed.")

    def _next_id(self) -> str:
        self._check_open()
        return str(next(self._request_numbers))

    def _paired(
        self, sampling_params: SamplingParams | Sequence[SamplingParams] | None, count: int
    ) -> list[SamplingParams]:
        if sampling_params is None:
            sampling_params = self.get_default_sampling_params()
        if isinstance(sampling_params, SamplingParams):
            return [sampling_params] * count
        if len(sampling_params) != count:
            raise BadRequest(
                f"sampling_params must be one for all or one for each of the {count} prompts, "
                f"got {len(sampling_params)}.",
                parameter="sampling_params",
            )
        return list(sampling_params)

    def _call(self, prompt: Prompt, sampling: SamplingParams) -> Generation:
        return Generation(
            prompt=prompt_content(prompt),
            sampling=sampling,
            request_id=self._next_id(),
            cache_salt=prompt.get("cache_salt") if isinstance(prompt, Mapping) else None,
        )

    async def _render(self, conversations: Sequence[Conversation]) -> list[str]:
        return await asyncio.gather(*(self._model.generator.render(conversation) for conversation in conversations))

    async def _answer(self, calls: Sequence[Generation], use_tqdm: Bar) -> list[RequestOutput]:
        streams = await self._model.generator.start_all(calls)
        with generation_progress(use_tqdm, len(calls)) as progress:
            answers = [
                asyncio.create_task(_collect(call, stream, progress))
                for call, stream in zip(calls, streams, strict=True)
            ]
            try:
                return await asyncio.gather(*answers)
            finally:
                for stream in streams:
                    stream.close()

    def _pool(
        self,
        prompts: Prompt | Sequence[Prompt],
        params: PoolingParams,
        use_tqdm: Bar,
        truncate_prompt_tokens: int | None,
    ) -> list[tuple[str, Pooled]]:
        """What came of each prompt, with its id."""
        inputs = [prompt_content(prompt) for prompt in listed_prompts(prompts)]
        call = Pooling(
            inputs=inputs,
            params=params,
            request_id=self._next_id(),
            encoding=Encoding(truncate_prompt_tokens=truncate_prompt_tokens),
        )
        if not inputs:
            return []
        pooled = self._model.run(self._run_pooling(self._model.pooler, call, use_tqdm))
        return [(f"{call.request_id}-{index}", each) for index, each in enumerate(pooled)]

    async def _run_pooling(self, pooler: Pooler, call: Pooling, use_tqdm: Bar) -> list[Pooled]:
        with pooling_progress(use_tqdm, len(call.inputs)) as on_progress:
            return await pooler.pool(call, on_progress)

    async def _score(self, pooler: Pooler, call: Scoring, use_tqdm: Bar) -> Scores:
        with pooling_progress(use_tqdm, len(call.documents)) as on_progress:
            return await pooler.score(call, on_progress)


async def _collect(call: Generation, stream: GenerationStream, progress: GenerationProgress | None) -> RequestOutput:
    deltas: list[list[Delta]] = [[] for _ in range(stream.n)]
    async with stream:
        async for delta in stream:
            deltas[delta.choice].append(delta)
    sampling = call.sampling
    prompt_logprobs = stream.prompt_logprobs
    output = RequestOutput(
        request_id=call.request_id,
        prompt=call.prompt if isinstance(call.prompt, str) else None,
        prompt_token_ids=stream.prompt_ids,
        outputs=[
            completion_output(index, parts, logprobs=sampling.logprobs is not None, with_text=sampling.detokenize)
            for index, parts in enumerate(deltas)
        ],
        prompt_logprobs=None
        if prompt_logprobs is None
        else [
            None if position is None else position_table(position, with_text=sampling.detokenize)
            for position in prompt_logprobs
        ],
        num_cached_tokens=stream.cached_tokens,
    )
    if progress is not None:
        progress.finished(output)
    return output
