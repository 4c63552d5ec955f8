"""POST /v1/completions, between its schema and the service: pure functions, no HTTP and no engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, TypeVar

from msgspec import UNSET

from headrace.api.logprobs import PromptLogprobs, prompt_logprobs
from headrace.api.merge import WholeChoice
from headrace.api.openai.answer import Head, PromptView
from headrace.api.openai.call import generation
from headrace.api.openai.logprobs import CompletionLogprobsWriter
from headrace.api.openai.sampling import completion_sampling
from headrace.api.openai.schema import CompletionRequest
from headrace.api.openai.wire import (
    Completion,
    CompletionChoice,
    CompletionChunk,
    CompletionChunkChoice,
    CompletionLogprobs,
)
from headrace.api.usage import UsagePolicy, final_usage, stream_usage, whole_usage
from headrace.api.wire import encode
from headrace.core.errors import BadRequest
from headrace.core.request import FinishReason
from headrace.service import Delta, Generation, PositionLogprobs

T = TypeVar("T")


def generations(
    body: CompletionRequest,
    defaults: Mapping[str, Any],
    *,
    request_id: str,
    priority_header: str | None = None,
) -> list[Generation]:
    """One call a prompt, in order. Raises `BadRequest` if a value makes no sense."""
    prompts = _prompts(body.prompt)
    sampling = completion_sampling(body, defaults)
    return [
        generation(
            body,
            prompt,
            sampling,
            request_id=request_id if len(prompts) == 1 else f"{request_id}-{index}",
            add_special_tokens=body.add_special_tokens,
            priority_header=priority_header,
        )
        for index, prompt in enumerate(prompts)
    ]


def _prompts(given: str | list[str] | list[int] | list[list[int]]) -> list[str | list[int]]:
    """A flat list of ids is one prompt."""
    one = isinstance(given, str) or (bool(given) and isinstance(given[0], int))
    prompts: list[Any] = [given] if one else list(given)
    if not prompts or not all(prompts):
        raise BadRequest("prompt must not be empty.", parameter="prompt")
    return prompts


class CompletionFormat:
    """Writes one completion, whole or in chunks. `prompts` come in the order of the request.

    `tokens_as_ids`: whether logprobs show tokens as ids where the body does not say.
    """

    def __init__(
        self,
        body: CompletionRequest,
        head: Head,
        usage: UsagePolicy,
        prompts: Sequence[PromptView],
        *,
        tokens_as_ids: bool = False,
    ) -> None:
        self._body = body
        self._tokens_as_ids = body.tokens_as_ids(tokens_as_ids)
        self._head = head
        self._usage = usage
        self._prompts = prompts
        self._sources = [prompt.source for prompt in prompts]
        self._prompt_tokens = sum(len(prompt.ids) for prompt in prompts)
        # The engine always makes a token; where none was wanted it is neither shown nor counted.
        self._hides_output = body.max_tokens == 0
        # Beside `return_token_ids` the contract shows the prompt as ids only.
        self._echoes_text = body.echo and not body.return_token_ids

    def whole(self, results: Sequence[Sequence[WholeChoice]]) -> bytes:
        """`results` by prompt, then by choice."""
        choices = [
            self._whole_choice(position * self._body.n + choice, prompt, result)
            for position, (prompt, answers) in enumerate(zip(self._prompts, results, strict=True))
            for choice, result in enumerate(answers)
        ]
        completion_tokens = sum(len(self._shown(result.token_ids)) for answers in results for result in answers)
        return encode(
            Completion(
                id=self._head.id,
                created=self._head.created,
                model=self._head.model,
                choices=choices,
                system_fingerprint=self._head.fingerprint,
                usage=whole_usage(self._sources, completion_tokens, details=self._usage.details),
            )
        )

    async def chunks(self, deltas: AsyncIterator[tuple[int, Delta]]) -> AsyncIterator[bytes]:
        """One chunk a delta, then the usage chunk if it was asked for."""
        writers: dict[int, CompletionLogprobsWriter] = {}
        completion_tokens = 0
        async for position, delta in deltas:
            index = position * self._body.n + delta.choice
            prompt = None
            if (writer := writers.get(index)) is None:
                prompt, writer = self._prompts[position], self._writer()
                writers[index] = writer
            completion_tokens += len(self._shown(delta.token_ids))
            yield encode(
                CompletionChunk(
                    id=self._head.id,
                    created=self._head.created,
                    model=self._head.model,
                    choices=[self._chunk_choice(index, prompt, delta, writer)],
                    system_fingerprint=self._head.terminal_fingerprint(delta.finish_reason, self._usage),
                    usage=stream_usage(self._prompt_tokens, completion_tokens) if self._usage.on_chunks else UNSET,
                )
            )
        if self._usage.at_end:
            yield encode(
                CompletionChunk(
                    id=self._head.id,
                    created=self._head.created,
                    model=self._head.model,
                    choices=[],
                    system_fingerprint=self._head.fingerprint,
                    usage=final_usage(self._sources, completion_tokens, details=self._usage.details),
                )
            )

    def _whole_choice(self, index: int, prompt: PromptView, result: WholeChoice) -> CompletionChoice:
        ids_shown = self._body.return_token_ids
        return CompletionChoice(
            index=index,
            text=self._text(prompt, result.text),
            logprobs=self._logprobs(self._writer(), prompt, result.logprobs),
            finish_reason=self._finish_reason(result.finish_reason),
            stop_reason=None if self._hides_output else result.stop_reason,
            token_ids=list(self._shown(result.token_ids)) if ids_shown else None,
            prompt_logprobs=self._prompt_logprobs(prompt),
            prompt_token_ids=prompt.ids if ids_shown else None,
        )

    def _chunk_choice(
        self, index: int, prompt: PromptView | None, delta: Delta, writer: CompletionLogprobsWriter
    ) -> CompletionChunkChoice:
        """`prompt` comes with the first chunk of a choice."""
        ids_shown = self._body.return_token_ids
        return CompletionChunkChoice(
            index=index,
            text=self._text(prompt, delta.text),
            logprobs=self._logprobs(writer, prompt, delta.logprobs),
            finish_reason=self._finish_reason(delta.finish_reason),
            stop_reason=None if self._hides_output else delta.stop_reason,
            prompt_token_ids=prompt.ids if prompt is not None and (ids_shown or self._body.echo) else None,
            token_ids=list(self._shown(delta.token_ids)) if ids_shown else None,
        )

    def _text(self, prompt: PromptView | None, output: str) -> str:
        echoed = prompt.text if prompt is not None and self._echoes_text else ""
        return echoed if self._hides_output else echoed + output

    def _writer(self) -> CompletionLogprobsWriter:
        return CompletionLogprobsWriter(
            self._body.logprobs or 0, as_ids=self._tokens_as_ids, token_ids=self._body.logprob_token_ids
        )

    def _logprobs(
        self, writer: CompletionLogprobsWriter, prompt: PromptView | None, output: Sequence[PositionLogprobs]
    ) -> CompletionLogprobs | None:
        if self._body.logprobs is None:
            return None
        if prompt is None or not self._body.echo:
            return writer.write(self._shown(output))
        return writer.write(
            self._shown(output),
            first_of_prompt=(prompt.ids[0], prompt.first_token),
            rest_of_prompt=[position for position in prompt.logprobs or () if position is not None],
        )

    def _prompt_logprobs(self, prompt: PromptView) -> PromptLogprobs | None:
        """Echoed logprobs fill this too, as many alternatives as they have."""
        asked = self._body.logprobs if self._body.prompt_logprobs is None else self._body.prompt_logprobs
        return None if prompt.logprobs is None or asked is None else prompt_logprobs(prompt.logprobs, asked)

    def _shown(self, output: Sequence[T]) -> Sequence[T]:
        return () if self._hides_output else output

    def _finish_reason(self, reason: FinishReason | None) -> FinishReason | None:
        return FinishReason.LENGTH if reason is not None and self._hides_output else reason
