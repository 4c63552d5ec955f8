"""Conversations of a chat or tokenize body, for the chat template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headrace.api.openai.schema import ChatRequest, Templated
from headrace.config.sections import ApiConfig
from headrace.core.errors import BadRequest
from headrace.service import Conversation


def chat_conversation(
    body: ChatRequest, config: ApiConfig, *, tools: Sequence[Mapping[str, Any]] | None
) -> Conversation:
    """`tools` are those that the model is to see."""
    effort: dict[str, Any] = {}
    if body.reasoning_effort is not None:
        effort = {"reasoning_effort": body.reasoning_effort, "enable_thinking": body.reasoning_effort != "none"}
    return conversation(body, config, effort, tools=tools, documents=body.documents)


def conversation(
    body: Templated,
    config: ApiConfig,
    variables: Mapping[str, Any] | None = None,
    *,
    tools: Sequence[Mapping[str, Any]] | None,
    documents: list[dict[str, str]] | None = None,
) -> Conversation:
    """`variables` win over those of the server, the request's own over both.

    Raises `BadRequest` for a template brought along, unless this server trusts them.
    """
    if body.chat_template is not None and not config.trust_request_chat_template:
        raise BadRequest(
            "This server takes no chat template from requests; --trust-request-chat-template lets them in.",
            parameter="chat_template",
        )
    return Conversation(
        messages=body.messages or [],
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        chat_template_kwargs={
            **config.default_chat_template_kwargs,
            **(variables or {}),
            **(body.chat_template_kwargs or {}),
        },
        documents=documents,
        tools=tools,
        chat_template=body.chat_template,
    )
