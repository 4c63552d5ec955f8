"""The Python API: a model in this process, without a server.

llm = LLM("smollm2")
for output in llm.generate(["The capital of France is"], SamplingParams(temperature=0)):
    print(output.outputs[0].text)
"""

from __future__ import annotations

import asyncio
import contextlib
import difflib
import itertools
import sys
import time
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, cast

from tqdm.auto import tqdm

from headrace.config.engine import EngineConfig
from headrace.config.rules import rules_of
from headrace.config.sections import LimitsConfig, ModelConfig
from headrace.config.values import read_value
from headrace.core.errors import BadRequest, ConfigError, EngineDead
from headrace.core.sampling import SamplingParams
from headrace.hub import open_checkpoint
from headrace.outputs import RequestOutput, completion_output, position_table
from headrace.runtime import LocalEngine
from headrace.service import Conversation, Delta, Generation, GenerationStream, Generator, Message
from headrace.service.background import BackgroundLoop
from headrace.service.model_text import load_model_text
from headrace.text import Tokenizer

Prompt = str | Sequence[int] | Mapping[str, Any]
"""A text, token ids, or `{"prompt": text}` or `{"prompt_token_ids": ids}`, either with a `cache_salt` if wanted."""

Bar = bool | Callable[..., Any]
"""Whether to show a progress bar, or what to make it with in place of `tqdm`."""

_PROMPT_KEYS = {"prompt", "prompt_token_ids", "cache_salt"}


class LLM:
    """A loaded model that answers many prompts at once.

    `model` is a known name, a folder, a .gguf file or a Hub id. `tokenizer`, `revision`, `chat_template`,
    `generation_config` and `override_generation_config` are as the flags of `headrace serve`; so are `engine_options`,
    the fields of `EngineConfig` (`dtype`, `max_model_len`, `max_num_seqs`, …). The same `seed` and the same calls give
    the same answers. Raises `StartupError` if the model cannot be loaded, `ConfigError` (one of them) for an option
    that is unknown or makes no sense. Calls are to be made from one thread at a time.

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
        max_logprobs: int = 20,
        seed: int = 0,
        **engine_options: Any,
    ) -> None:
        engine_config = _engine_config(engine_options)
        # One call may bring any number of prompts: there is nobody here to protect from it.
        limits = LimitsConfig(max_logprobs=max_logprobs, max_completion_prompts=sys.maxsize)
        model_config = ModelConfig(
            model=model,
            tokenizer=tokenizer,
            revision=revision,
            chat_template=chat_template,
            generation_config=generation_config,
            override_generation_config=dict(override_generation_config or {}),
        )
        checkpoint = open_checkpoint(model, revision=revision)
        text = load_model_text(model_config, checkpoint)
        engine = LocalEngine(str(checkpoint.path), engine_config)
        self._loop = BackgroundLoop("headrace-llm")
        try:
            self._loop.run(engine.start())
        except BaseException:
            self._loop.close()
            raise
        self._generator = Generator(
            engine,
            text.tokenizer,
            text.template,
            limits=limits,
            seed=seed,
            defaults=text.sampling_defaults,
            eos_token_ids=text.eos_token_ids,
            metrics=None,
            model_name=model,
        )
        self._request_numbers = itertools.count()
        self._shut_down = weakref.finalize(self, _shut_down, self._loop, engine, self._generator)

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
        listed = _listed_prompts(prompts)
        calls = [
            self._call(prompt, sampling)
            for prompt, sampling in zip(listed, self._paired(sampling_params, len(listed)), strict=True)
        ]
        return self._loop.run(self._answer(calls, use_tqdm))

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
            for conversation in _listed_conversations(messages)
        ]
        paired = self._paired(sampling_params, len(conversations))
        texts = self._loop.run(self._render(conversations))
        calls = [
            replace(self._call(text, sampling), add_special_tokens=False)
            for text, sampling in zip(texts, paired, strict=True)
        ]
        return self._loop.run(self._answer(calls, use_tqdm))

    def get_default_sampling_params(self) -> SamplingParams:
        """What the model's generation config asks for, else the built-in defaults."""
        values = dict(self._generator.defaults)
        if (max_tokens := values.pop("max_new_tokens", None)) is not None:
            values["max_tokens"] = max_tokens
        return SamplingParams(**values)

    def get_tokenizer(self) -> Tokenizer:
        return self._generator.tokenizer

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
            prompt=_content(prompt),
            sampling=sampling,
            request_id=str(next(self._request_numbers)),
            cache_salt=prompt.get("cache_salt") if isinstance(prompt, Mapping) else None,
        )

    async def _render(self, conversations: Sequence[Conversation]) -> list[str]:
        return await asyncio.gather(*(self._generator.render(conversation) for conversation in conversations))

    async def _answer(self, calls: Sequence[Generation], use_tqdm: Bar) -> list[RequestOutput]:
        streams = await self._generator.start_all(calls)
        with _progress(use_tqdm, len(calls)) as progress:
            answers = [
                asyncio.create_task(_collect(call, stream, progress))
                for call, stream in zip(calls, streams, strict=True)
            ]
            try:
                return await asyncio.gather(*answers)
            finally:
                for stream in streams:
                    stream.close()


class _Progress:
    """A bar that counts finished prompts and shows tokens a second."""

    def __init__(self, make_bar: Callable[..., Any], prompts: int) -> None:
        self._bar = make_bar(total=prompts, desc="Processed prompts", dynamic_ncols=True)
        self._start = time.monotonic()
        self._read = 0
        self._written = 0

    def finished(self, output: RequestOutput) -> None:
        self._read += len(output.prompt_token_ids)
        self._written += sum(len(answer.token_ids) for answer in output.outputs)
        seconds = max(time.monotonic() - self._start, 1e-9)
        self._bar.set_postfix_str(
            f"input {self._read / seconds:.1f} tok/s, output {self._written / seconds:.1f} tok/s", refresh=False
        )
        self._bar.update(1)

    def close(self) -> None:
        self._bar.close()


async def _collect(call: Generation, stream: GenerationStream, progress: _Progress | None) -> RequestOutput:
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


@contextlib.contextmanager
def _progress(use_tqdm: Bar, prompts: int) -> Iterator[_Progress | None]:
    if use_tqdm is False or not prompts:
        yield None
        return
    with contextlib.closing(_Progress(tqdm if use_tqdm is True else use_tqdm, prompts)) as progress:
        yield progress


def _listed_prompts(prompts: Prompt | Sequence[Prompt]) -> list[Prompt]:
    single = isinstance(prompts, str | Mapping) or (len(prompts) > 0 and isinstance(prompts[0], int))
    return [cast(Prompt, prompts)] if single else list(cast(Sequence[Prompt], prompts))


def _listed_conversations(messages: Sequence[Message] | Sequence[Sequence[Message]]) -> list[Sequence[Message]]:
    single = not messages or isinstance(messages[0], Mapping)
    return [cast(Sequence[Message], messages)] if single else list(cast(Sequence[Sequence[Message]], messages))


def _content(prompt: Prompt) -> str | list[int]:
    """The text or the ids of a prompt. Raises `BadRequest` if it is neither."""
    content: object = prompt
    if isinstance(prompt, Mapping):
        if unknown := sorted(set(prompt) - _PROMPT_KEYS):
            raise BadRequest(f"A prompt with {unknown[0]!r} is not supported.", parameter="prompt")
        if ("prompt" in prompt) == ("prompt_token_ids" in prompt):
            raise BadRequest("A prompt needs one of 'prompt' and 'prompt_token_ids'.", parameter="prompt")
        content = prompt["prompt"] if "prompt" in prompt else prompt["prompt_token_ids"]
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(isinstance(token, int) for token in content):
        return list(content)
    raise BadRequest(f"A prompt must be a text or a list of token ids, got {content!r}.", parameter="prompt")


def _engine_config(options: Mapping[str, Any]) -> EngineConfig:
    """Values may be spelled as on the command line: `dtype="half"`, `max_model_len="4k"`."""
    known = [field.name for field in fields(EngineConfig)]
    for name in options:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"did you mean {close[0]}?" if close else f"known are: {', '.join(known)}."
            raise ConfigError(f"LLM has no option {name}; {hint}")
    rules = rules_of(EngineConfig)
    return EngineConfig(**{name: read_value(rules[name], value, name) for name, value in options.items()})


def _shut_down(loop: BackgroundLoop, engine: LocalEngine, generator: Generator) -> None:
    generator.close()
    loop.run(engine.stop())
    loop.close()
