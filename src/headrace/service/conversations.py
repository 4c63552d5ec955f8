"""Conversations into prompts, through a chat template."""

from __future__ import annotations

from headrace.core.errors import BadRequest
from headrace.service.messages import prepare_messages
from headrace.service.types import Conversation
from headrace.text import ChatTemplate


def render_conversation(template: ChatTemplate, conversation: Conversation, *, model_name: str) -> str:
    """Raises `BadRequest` for messages that make no sense, and what the template raises."""
    tools = None if conversation.tools is None else list(conversation.tools)
    messages = prepare_messages(
        conversation.messages,
        content_format=template.content_format(tools=bool(tools)),
        keep_developer=_knows_developer(template),
        model_name=model_name,
    )
    return template.render(
        messages,
        add_generation_prompt=conversation.add_generation_prompt,
        continue_final_message=conversation.continue_final_message,
        tools=tools,
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
        content_format=template.content_format(),
        keep_developer=True,
        model_name="",
    )
    try:
        return template.render(messages).casefold().replace(role, "")
    except BadRequest:
        return None
