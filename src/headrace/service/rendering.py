"""Renders conversations without holding anybody up."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from headrace.core.errors import BadRequest
from headrace.service.conversations import render_conversation
from headrace.service.template_helper import RenderTask
from headrace.service.template_processes import TemplateProcesses
from headrace.service.types import Conversation
from headrace.service.workers import Workers
from headrace.text import ChatTemplate


class Renderer:
    """Renders the model's template in threads of its own, so that one that does not end holds up nobody else's
    tokenizing; a template that comes with a conversation in a process of its own.

    `special_tokens` are variables of the latter.
    """

    def __init__(
        self,
        template: ChatTemplate | None,
        *,
        model_name: str,
        timeout: float,
        special_tokens: Mapping[str, str] | None = None,
    ) -> None:
        self._template = template
        self._special_tokens = dict(special_tokens or {})
        self._model_name = model_name
        self._timeout = timeout
        self._workers = Workers("headrace-template")
        self._processes = TemplateProcesses(timeout)

    async def render(self, conversation: Conversation) -> str:
        """Raises `BadRequest`: no template, messages that make no sense, the template's own refusal, out of time."""
        if conversation.continue_final_message and conversation.add_generation_prompt:
            raise BadRequest(
                "continue_final_message and add_generation_prompt cannot both be true.",
                parameter="continue_final_message",
                value=True,
            )
        if "chat_template" in conversation.chat_template_kwargs:
            raise BadRequest("chat_template_kwargs must not hold a chat_template.", parameter="chat_template_kwargs")
        if conversation.chat_template is not None:
            return await self._processes.render(self._task(conversation, conversation.chat_template))
        template = self._template
        if template is None:
            raise BadRequest(
                "This model brings no chat template, and a default chat template is no longer allowed: one must be "
                "provided, with --chat-template, to use conversations.",
                parameter="messages",
            )
        try:
            async with asyncio.timeout(self._timeout):
                return await self._workers.run(render_conversation, template, conversation, model_name=self._model_name)
        except TimeoutError:
            raise BadRequest(
                f"The chat template did not finish within {self._timeout:g} s.", parameter="messages"
            ) from None

    def close(self) -> None:
        self._workers.close()
        self._processes.close()

    def _task(self, conversation: Conversation, template: str) -> RenderTask:
        return RenderTask(
            template=template,
            special_tokens=self._special_tokens,
            conversation=conversation,
            model_name=self._model_name,
            cpu_seconds=self._timeout,
        )
