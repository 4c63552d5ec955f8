"""Writes the answer to a token request, whole or in chunks: pure functions, no HTTP and no engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass

from msgspec import UNSET, UnsetType

from headrace.api.logprobs import (
    ChatLogprobs,
    PromptLogprobs,
    chat_logprobs,
    chosen_first,
    prompt_logprobs,
    shown_alternatives,
)
from headrace.api.merge import WholeChoice
from headrace.api.tokens.schema import GenerateRequest
from headrace.api.tokens.wire import (
    TokenLogprob,
    TokenPosition,
    TokensAnswer,
    TokensChoice,
    TokensChunk,
    TokensChunkChoice,
    TokensLogprobs,
    WeightVersion,
)
from headrace.api.usage import PromptSource, Usage, UsagePolicy, final_usage, stream_usage, whole_usage
from headrace.api.wire import encode, finite
from headrace.core.sampling import SamplingParams
from headrace.service import Delta, PositionLogprobs, TokenChoice


@dataclass(frozen=True, slots=True)
class Head:
    """What an answer says of itself. `created` in Unix seconds."""

    request_id: str
    created: int
    model: str


class TokensFormat:
    """Writes one answer. `sampling` is what the service was given for `body`."""

    def __init__(
        self, body: GenerateRequest, sampling: SamplingParams, head: Head, usage: UsagePolicy, prompt: PromptSource
    ) -> None:
        self._body = body
        self._sampling = sampling
        self._head = head
        self._usage = usage
        self._prompt = prompt
        self._with_text = body.output_mode == "text"

    def whole(self, results: Sequence[WholeChoice]) -> bytes:
        """`results` by choice."""
        return encode(
            TokensAnswer(
                request_id=self._head.request_id,
                model=self._head.model,
                created=self._head.created,
                output_mode=self._body.output_mode,
                choices=[self._whole_choice(index, result) for index, result in enumerate(results)],
                usage=whole_usage(
                    [self._prompt], sum(len(result.token_ids) for result in results), details=self._usage.details
                ),
                prompt_logprobs=self._prompt_logprobs(),
                prompt_token_ids=self._prompt.prompt_ids if self._body.return_token_ids else None,
            )
        )

    async def chunks(self, deltas: AsyncIterator[tuple[int, Delta]]) -> AsyncIterator[bytes]:
        """One chunk a delta, then the usage chunk if it was asked for."""
        completion_tokens = 0
        prompt_token_ids: list[int] | UnsetType = self._prompt.prompt_ids if self._body.return_token_ids else UNSET
        async for _, delta in deltas:
            if not (delta.token_ids or delta.text or delta.finish_reason is not None):
                continue
            completion_tokens += len(delta.token_ids)
            usage = stream_usage(len(self._prompt.prompt_ids), completion_tokens) if self._usage.on_chunks else None
            yield self._chunk([self._chunk_choice(delta)], usage, prompt_token_ids)
            prompt_token_ids = UNSET
        if self._usage.at_end:
            yield self._chunk([], final_usage([self._prompt], completion_tokens, details=self._usage.details), UNSET)

    def _chunk(
        self, choices: list[TokensChunkChoice], usage: Usage | None, prompt_token_ids: list[int] | UnsetType
    ) -> bytes:
        return encode(
            TokensChunk(
                request_id=self._head.request_id,
                output_mode=self._body.output_mode,
                usage=usage,
                choices=choices,
                prompt_token_ids=prompt_token_ids,
            )
        )

    def _whole_choice(self, index: int, result: WholeChoice) -> TokensChoice:
        return TokensChoice(
            index=index,
            text=result.text if self._with_text else UNSET,
            finish_reason=result.finish_reason,
            stop_reason=result.stop_reason,
            token_ids=result.token_ids,
            logprobs=self._logprobs(result.logprobs),
            weight_versions=[WeightVersion(end=len(result.token_ids))],
        )

    def _chunk_choice(self, delta: Delta) -> TokensChunkChoice:
        return TokensChunkChoice(
            index=delta.choice,
            text=delta.text if self._with_text else UNSET,
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason,
            token_ids=delta.token_ids,
            logprobs=self._logprobs(delta.logprobs),
        )

    def _prompt_logprobs(self) -> PromptLogprobs | None:
        asked, positions = self._sampling.prompt_logprobs, self._prompt.prompt_logprobs
        if asked is None or positions is None:
            return None
        return prompt_logprobs(positions, asked, with_text=self._with_text)

    def _logprobs(self, positions: Sequence[PositionLogprobs]) -> TokensLogprobs | ChatLogprobs | None:
        if self._sampling.logprobs is None:
            return None
        count = shown_alternatives(self._sampling.logprobs, self._sampling.logprob_token_ids)
        if self._with_text:
            return chat_logprobs(positions, count, as_ids=False)
        return TokensLogprobs(content=[_position(position, count) for position in positions])


def _position(position: PositionLogprobs, count: int) -> TokenPosition:
    chosen = position.chosen
    return TokenPosition(
        token_id=chosen.token_id,
        logprob=finite(chosen.logprob),
        rank=chosen.rank,
        top_logprobs=[_token(token) for token in chosen_first(position, count)],
    )


def _token(token: TokenChoice) -> TokenLogprob:
    return TokenLogprob(token_id=token.token_id, logprob=finite(token.logprob), rank=token.rank)
