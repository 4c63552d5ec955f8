"""Conversations of a chat or tokenize body, for the chat template."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headrace.api.openai.schema import ChatRequest, Templated
from headrace.core.errors import BadRequest
from headrace.service import Conversation


def chat_conversation(body: ChatRequest, default_kwargs: Mapping[str, Any]) -> Conversation:
    """`default_kwargs`: template variables of the server; the request's win."""
    effort: dict[str, Any] = {}
    if body.reasoning_effort is not None:
        effort = {"reasoning_effort": body.reasoning_effort, "enable_thinking": body.reasoning_effort != "none"}
    return conversation(body, {**default_kwargs, **effort}, documents=body.documents)


def conversation(
    body: Templated, default_kwargs: Mapping[str, Any], *, documents: list[dict[str, str]] | None = None
) -> Conversation:
    """Raises `BadRequest` for a template brought along."""
    if body.chat_template is not None:
        raise BadRequest("This server takes no chat template from requests.", parameter="chat_template")
    return Conversation(
        messages=body.messages or [],
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        chat_template_kwargs={**default_kwargs, **(body.chat_template_kwargs or {})},
        documents=documents,
    )
