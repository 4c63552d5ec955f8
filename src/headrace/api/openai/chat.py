"""POST /v1/chat/completions, between its schema and the service: pure functions, no HTTP and no engine."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from msgspec import UNSET, UnsetType

from headrace.api.logprobs import ChatLogprobs, chat_logprobs, prompt_logprobs, shown_alternatives
from headrace.api.merge import WholeChoice
from headrace.api.openai.answer import Head, PromptView
from headrace.api.openai.call import generation
from headrace.api.openai.sampling import chat_sampling
from headrace.api.openai.schema import ChatRequest
from headrace.api.openai.wire import (
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
)
from headrace.api.usage import Usage, UsagePolicy, final_usage, stream_usage, whole_usage
from headrace.api.wire import encode
from headrace.service import Delta, Generation, PositionLogprobs


def chat_generation(
    body: ChatRequest,
    prompt: str,
    defaults: Mapping[str, Any],
    *,
    request_id: str,
    priority_header: str | None = None,
) -> Generation:
    """`prompt` is the rendered conversation."""
    return generation(
        body,
        prompt,
        chat_sampling(body, defaults),
        request_id=request_id,
        add_special_tokens=body.add_special_tokens,
        priority_header=priority_header,
    )


def answer_role(body: ChatRequest, response_role: str) -> str:
    """The server's role, or, where no new turn is opened, that of the turn being written on."""
    return response_role if body.add_generation_prompt else body.messages[-1]["role"]


def echoed_text(body: ChatRequest, role: str) -> str:
    """What `echo` puts in front: the last message, if the answer's role wrote it."""
    last = body.messages[-1]
    if not body.echo or last["role"] != role:
        return ""
    content = last.get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)


class ChatFormat:
    """Writes one chat answer, whole or in chunks. `prompt.text` is the rendered conversation.

    `tokens_as_ids`: whether logprobs show tokens as ids where the body does not say.
    """

    def __init__(
        self,
        body: ChatRequest,
        head: Head,
        usage: UsagePolicy,
        prompt: PromptView,
        role: str,
        *,
        tokens_as_ids: bool = False,
    ) -> None:
        self._body = body
        self._tokens_as_ids = (
            tokens_as_ids if body.return_tokens_as_token_ids is None else body.return_tokens_as_token_ids
        )
        self._head = head
        self._usage = usage
        self._prompt = prompt
        self._role = role
        self._echoed = echoed_text(body, role)

    def whole(self, results: Sequence[WholeChoice]) -> bytes:
        """`results` by choice."""
        body, prompt = self._body, self._prompt
        asked = body.prompt_logprobs
        logprobs = prompt.logprobs
        return encode(
            ChatCompletion(
                id=self._head.id,
                created=self._head.created,
                model=self._head.model,
                choices=[self._whole_choice(index, result) for index, result in enumerate(results)],
                system_fingerprint=self._head.fingerprint,
                usage=whole_usage(
                    [prompt.source], sum(len(result.token_ids) for result in results), details=self._usage.details
                ),
                prompt_logprobs=None if asked is None or logprobs is None else prompt_logprobs(logprobs, asked),
                prompt_token_ids=prompt.ids if body.return_token_ids else None,
                prompt_text=prompt.text if body.return_prompt_text else None,
            )
        )

    async def chunks(self, deltas: AsyncIterator[tuple[int, Delta]]) -> AsyncIterator[bytes]:
        """The roles of all choices with the first delta, then its content, and so on; the usage chunk if asked for."""
        completion_tokens = 0
        begun = False
        async for _, delta in deltas:
            if not begun:
                begun = True
                for opening in self._openings():
                    yield opening
            completion_tokens += len(delta.token_ids)
            if self._says_something(delta):
                yield self._chunk(
                    self._choice(delta),
                    completion_tokens,
                    fingerprint=self._head.terminal_fingerprint(delta.finish_reason, self._usage),
                )
        if self._usage.at_end:
            yield encode(
                ChatChunk(
                    id=self._head.id,
                    created=self._head.created,
                    model=self._head.model,
                    choices=[],
                    system_fingerprint=self._head.fingerprint,
                    usage=final_usage([self._prompt.source], completion_tokens, details=self._usage.details),
                )
            )

    def _whole_choice(self, index: int, result: WholeChoice) -> ChatChoice:
        return ChatChoice(
            index=index,
            message=ChatMessage(role=self._role, content=self._echoed + result.text),
            logprobs=self._logprobs(result.logprobs),
            finish_reason=result.finish_reason,
            stop_reason=result.stop_reason,
            token_ids=result.token_ids if self._body.return_token_ids else None,
        )

    def _openings(self) -> list[bytes]:
        body = self._body
        roles = [
            self._chunk(
                ChatChunkChoice(index=index, delta=ChatDelta(role=self._role, content="")),
                0,
                prompt_token_ids=self._prompt.ids if body.return_token_ids else None,
                prompt_text=self._prompt.text if body.return_prompt_text else None,
            )
            for index in range(body.n)
        ]
        if not self._echoed:
            return roles
        echo = ChatDelta(content=self._echoed)
        return roles + [self._chunk(ChatChunkChoice(index=index, delta=echo), 0) for index in range(body.n)]

    def _says_something(self, delta: Delta) -> bool:
        """Tokens whose text is held back show only where ids or logprobs were asked for."""
        shows_tokens = self._body.return_token_ids or self._body.logprobs
        return bool(delta.text or delta.finish_reason is not None or (shows_tokens and delta.token_ids))

    def _choice(self, delta: Delta) -> ChatChunkChoice:
        ended = delta.finish_reason is not None
        return ChatChunkChoice(
            index=delta.choice,
            delta=ChatDelta() if ended and not delta.text else ChatDelta(content=delta.text),
            logprobs=self._logprobs(delta.logprobs),
            finish_reason=delta.finish_reason,
            stop_reason=delta.stop_reason if ended else UNSET,
            token_ids=delta.token_ids if self._body.return_token_ids else None,
        )

    def _chunk(
        self,
        choice: ChatChunkChoice,
        completion_tokens: int,
        *,
        fingerprint: str | UnsetType = UNSET,
        prompt_token_ids: list[int] | UnsetType | None = UNSET,
        prompt_text: str | UnsetType | None = UNSET,
    ) -> bytes:
        return encode(
            ChatChunk(
                id=self._head.id,
                created=self._head.created,
                model=self._head.model,
                choices=[choice],
                system_fingerprint=fingerprint,
                usage=self._running_usage(completion_tokens),
                prompt_token_ids=prompt_token_ids,
                prompt_text=prompt_text,
            )
        )

    def _running_usage(self, completion_tokens: int) -> Usage | UnsetType:
        return stream_usage(len(self._prompt.ids), completion_tokens) if self._usage.on_chunks else UNSET

    def _logprobs(self, positions: Sequence[PositionLogprobs]) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        count = shown_alternatives(self._body.top_logprobs, self._body.logprob_token_ids)
        return chat_logprobs(positions, count, as_ids=self._tokens_as_ids)
