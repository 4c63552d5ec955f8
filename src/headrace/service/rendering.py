"""Conversations into prompts, through the model's chat template."""

from __future__ import annotations

import asyncio

from headrace.core.errors import BadRequest
from headrace.service.messages import prepare_messages
from headrace.service.types import Conversation
from headrace.service.workers import Workers
from headrace.text import ChatTemplate


class Renderer:
    """Renders in threads of its own, so that a template that does not end holds up nobody else's tokenizing."""

    def __init__(self, template: ChatTemplate | None, *, model_name: str, timeout: float) -> None:
        self._template = template
        self._model_name = model_name
        self._timeout = timeout
        self._workers = Workers("headrace-template")

    async def render(self, conversation: Conversation) -> str:
        """Raises `BadRequest`: no template, messages that make no sense, the template's own refusal, out of time."""
        template = self._template
        if template is None:
            raise BadRequest(
                "This model brings no chat template, and a default chat template is no longer allowed: one must be "
                "provided, with --chat-template, to use conversations.",
                parameter="messages",
            )
        if conversation.continue_final_message and conversation.add_generation_prompt:
            raise BadRequest(
                "continue_final_message and add_generation_prompt cannot both be true.",
                parameter="continue_final_message",
                value=True,
            )
        if "chat_template" in conversation.chat_template_kwargs:
            raise BadRequest(
                "chat_template_kwargs must not hold a chat_template: this server uses its own only.",
                parameter="chat_template_kwargs",
            )
        try:
            async with asyncio.timeout(self._timeout):
                return await self._workers.run(self._render, template, conversation)
        except TimeoutError:
            raise BadRequest(
                f"The chat template did not finish within {self._timeout:g} s.", parameter="messages"
            ) from None

    def close(self) -> None:
        self._workers.close()

    def _render(self, template: ChatTemplate, conversation: Conversation) -> str:
        messages = prepare_messages(
            conversation.messages,
            content_format=template.content_format,
            keep_developer=_knows_developer(template),
            model_name=self._model_name,
        )
        return template.render(
            messages,
            add_generation_prompt=conversation.add_generation_prompt,
            continue_final_message=conversation.continue_final_message,
            tools=None if conversation.tools is None else list(conversation.tools),
            documents=None if conversation.documents is None else list(conversation.documents),
            variables=dict(conversation.chat_template_kwargs),
        )


def _knows_developer(template: ChatTemplate) -> bool:
    """Whether the template does more for the role "developer" than for a role that nobody has heard of."""
    return _probe(template, "developer") != _probe(template, "headrace")


def _probe(template: ChatTemplate, role: str) -> str | None:
    """A conversation that begins with `role`, less the role's name; None if the template refuses it."""
    messages = prepare_messages(
        [{"role": role, "content": "."}, {"role": "user", "content": "."}],
        content_format=template.content_format,
        keep_developer=True,
        model_name="",
    )
    try:
        return template.render(messages).casefold().replace(role, "")
    except BadRequest:
        return None
