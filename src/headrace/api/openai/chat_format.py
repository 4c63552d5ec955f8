"""Answers of POST /v1/chat/completions, whole or in chunks."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from itertools import compress
from typing import TypeVar

from msgspec import UNSET, UnsetType

from headrace.api.logprobs import ChatLogprobs, chat_logprobs, prompt_logprobs, shown_alternatives
from headrace.api.merge import WholeChoice
from headrace.api.openai.answer import Head, PromptView
from headrace.api.openai.chat import echoed_text
from headrace.api.openai.schema import ChatRequest
from headrace.api.openai.tools import finish_reason
from headrace.api.openai.wire import (
    CalledFunction,
    ChatChoice,
    ChatChunk,
    ChatChunkChoice,
    ChatCompletion,
    ChatDelta,
    ChatMessage,
    ToolCall,
    ToolCallDelta,
)
from headrace.api.usage import Usage, UsagePolicy, final_usage, stream_usage, whole_usage
from headrace.api.wire import encode
from headrace.service import Delta, PositionLogprobs
from headrace.service.answers import AnswerParts, AnswerPlan, AnswerReader, CallPart

T = TypeVar("T")


class ChatFormat:
    """Writes one chat answer, whole or in chunks. `prompt.text` is the rendered conversation.

    `plan` is what the answer is read for, and `reader` makes what reads one choice of it.
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
        plan: AnswerPlan,
        reader: Callable[[], AnswerReader],
        tokens_as_ids: bool = False,
    ) -> None:
        self._body = body
        self._tokens_as_ids = body.tokens_as_ids(tokens_as_ids)
        self._head = head
        self._usage = usage
        self._prompt = prompt
        self._role = role
        self._plan = plan
        self._reader = reader
        self._echoed = echoed_text(body, role)
        self._reasoning_tokens = 0

    def whole(self, results: Sequence[WholeChoice]) -> bytes:
        """`results` by choice."""
        body, prompt = self._body, self._prompt
        asked = body.prompt_logprobs
        logprobs = prompt.logprobs
        choices = [self._whole_choice(index, result) for index, result in enumerate(results)]
        return encode(
            ChatCompletion(
                id=self._head.id,
                created=self._head.created,
                model=self._head.model,
                choices=choices,
                system_fingerprint=self._head.fingerprint,
                usage=whole_usage(
                    [prompt.source],
                    sum(len(result.token_ids) for result in results),
                    details=self._usage.details,
                    reasoning_tokens=self._told_reasoning_tokens(),
                ),
                prompt_logprobs=None if asked is None or logprobs is None else prompt_logprobs(logprobs, asked),
                prompt_token_ids=prompt.ids if body.return_token_ids else None,
                prompt_text=prompt.text if body.return_prompt_text else None,
            )
        )

    async def chunks(self, deltas: AsyncIterator[tuple[int, Delta]]) -> AsyncIterator[bytes]:
        """The roles of all choices with the first delta, then its content, and so on; the usage chunk if asked for."""
        completion_tokens = 0
        readers = [self._reader() for _ in range(self._body.n)]
        begun = False
        async for _, delta in deltas:
            if not begun:
                begun = True
                for opening in self._openings():
                    yield opening
            completion_tokens += len(delta.token_ids)
            choice = self._choice(delta, readers[delta.choice])
            if choice is not None:
                yield self._chunk(
                    choice,
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
                    usage=final_usage(
                        [self._prompt.source],
                        completion_tokens,
                        details=self._usage.details,
                        reasoning_tokens=self._told_reasoning_tokens(),
                    ),
                )
            )

    def _whole_choice(self, index: int, result: WholeChoice) -> ChatChoice:
        reader = self._reader()
        parts = reader.whole(result.text, result.token_ids)
        self._reasoning_tokens += sum(parts.thoughts)
        shown = self._shown(parts)
        return ChatChoice(
            index=index,
            message=self._message(parts),
            logprobs=self._logprobs(_kept(result.logprobs, shown)),
            finish_reason=finish_reason(result.finish_reason, self._body, reader.calls, streamed=False),
            stop_reason=result.stop_reason,
            token_ids=_kept(result.token_ids, shown) if self._body.return_token_ids else None,
        )

    def _message(self, parts: AnswerParts) -> ChatMessage:
        content: str | None = self._echoed + parts.content
        if not content and not self._plan.tools.demanded and (parts.calls or self._plan.reasoning is not None):
            content = None
        reasoning = (parts.reasoning if self._body.include_reasoning else "") or None
        return ChatMessage(
            role=self._role,
            content=content,
            reasoning=reasoning,
            reasoning_content=reasoning or UNSET,
            tool_calls=[_tool_call(call) for call in parts.calls] or UNSET,
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

    def _choice(self, delta: Delta, reader: AnswerReader) -> ChatChunkChoice | None:
        """None if there is nothing to show: tokens without text show only where ids or logprobs were asked for."""
        ended = delta.finish_reason is not None
        parts = reader.push(delta.text, delta.token_ids, last=ended)
        self._reasoning_tokens += sum(parts.thoughts)
        shown = self._shown(parts)
        token_ids = _kept(delta.token_ids, shown)
        shows_tokens = bool(token_ids) and (self._body.return_token_ids or self._body.logprobs)
        said = self._delta(parts)
        if said is None and not ended and not shows_tokens:
            return None
        return ChatChunkChoice(
            index=delta.choice,
            delta=said or (ChatDelta() if ended else ChatDelta(content="")),
            logprobs=self._logprobs(_kept(delta.logprobs, shown)),
            finish_reason=finish_reason(delta.finish_reason, self._body, reader.calls, streamed=True),
            stop_reason=delta.stop_reason if ended else UNSET,
            token_ids=token_ids if self._body.return_token_ids else None,
        )

    def _delta(self, parts: AnswerParts) -> ChatDelta | None:
        """None if there is nothing to say."""
        reasoning = (parts.reasoning if self._body.include_reasoning else "") or UNSET
        if not parts.content and not parts.calls and reasoning is UNSET:
            return None
        content: str | UnsetType | None = parts.content or UNSET
        if not parts.content and any(call.name is not None for call in parts.calls):
            content = None
        return ChatDelta(
            content=content,
            reasoning=reasoning,
            reasoning_content=reasoning,
            tool_calls=[_tool_call_delta(call) for call in parts.calls] or UNSET,
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

    def _told_reasoning_tokens(self) -> int | None:
        return None if self._plan.reasoning is None else self._reasoning_tokens

    def _shown(self, parts: AnswerParts) -> list[bool] | None:
        """Which tokens may be seen; None for all. Those of thoughts are hidden with the thoughts."""
        return None if self._body.include_reasoning else [not thought for thought in parts.thoughts] or None

    def _logprobs(self, positions: Sequence[PositionLogprobs]) -> ChatLogprobs | None:
        if not self._body.logprobs:
            return None
        count = shown_alternatives(self._body.top_logprobs, self._body.logprob_token_ids)
        return chat_logprobs(positions, count, as_ids=self._tokens_as_ids)


def _kept(items: list[T], shown: list[bool] | None) -> list[T]:
    return items if shown is None else list(compress(items, shown))


def _tool_call(call: CallPart) -> ToolCall:
    return ToolCall(id=call.call_id or "", function=CalledFunction(name=call.name or "", arguments=call.arguments))


def _tool_call_delta(call: CallPart) -> ToolCallDelta:
    if call.call_id is None or call.name is None:
        return ToolCallDelta(index=call.index, function=CalledFunction(arguments=call.arguments))
    function = CalledFunction(name=call.name, arguments=call.arguments)
    return ToolCallDelta(id=call.call_id, type="function", index=call.index, function=function)
