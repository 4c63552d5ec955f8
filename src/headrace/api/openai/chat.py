"""POST /v1/chat/completions, from its schema to the service."""

from __future__ import annotations

from dataclasses import dataclass, replace

from headrace.api.openai.call import generation
from headrace.api.openai.sampling import chat_sampling
from headrace.api.openai.schema import ChatRequest
from headrace.api.openai.template import chat_conversation
from headrace.api.openai.tools import shown_tools, tool_use
from headrace.config.sections import ApiConfig
from headrace.core.sampling import SamplingParams
from headrace.service import Generation
from headrace.service.answers import AnswerFormats, AnswerPlan
from headrace.service.generation import Generator
from headrace.service.reasoning_use import reasoning_use


@dataclass(frozen=True, slots=True)
class ChatCall:
    """The rendered conversation, what is to be done with it, and what the answers are read for."""

    prompt: str
    generation: Generation
    plan: AnswerPlan


async def chat_call(
    body: ChatRequest, generator: Generator, config: ApiConfig, *, request_id: str, priority_header: str | None
) -> ChatCall:
    """Raises `BadRequest` if a value makes no sense or the template refuses the conversation."""
    sampling = chat_sampling(body, generator.defaults)
    tools = tool_use(body, generator.formats, config, sampling.structured_outputs)
    conversation = chat_conversation(body, config, tools=shown_tools(body, config))
    prompt = await generator.render(conversation)
    reasoning = reasoning_use(
        generator.formats.reasoning,
        conversation.chat_template_kwargs,
        prompt,
        continued=_text(body) if body.continue_final_message else "",
    )
    plan = AnswerPlan(tools=tools, reasoning=reasoning)
    call = generation(
        body,
        prompt,
        _planned(sampling, plan, generator.formats),
        request_id=request_id,
        add_special_tokens=body.add_special_tokens,
        priority_header=priority_header,
    )
    return ChatCall(prompt, call, plan)


def answer_role(body: ChatRequest, response_role: str) -> str:
    """The server's role, or, where no new turn is opened, that of the turn being written on."""
    return response_role if body.add_generation_prompt else body.messages[-1]["role"]


def echoed_text(body: ChatRequest, role: str) -> str:
    """What `echo` puts in front: the last message, if the answer's role wrote it."""
    return _text(body) if body.echo and body.messages[-1]["role"] == role else ""


def _planned(sampling: SamplingParams, plan: AnswerPlan, formats: AnswerFormats) -> SamplingParams:
    """`sampling` with a constraint that begins behind the thoughts, and with a text that shows all markers."""
    tools, reasoning = plan.tools, plan.reasoning
    constraint = tools.constraint or sampling.structured_outputs
    if constraint is not None and reasoning is not None and not formats.constrained_reasoning:
        constraint = replace(constraint, starts_after=reasoning.ends_with)
    sampling = replace(sampling, structured_outputs=constraint)
    if not tools.special_tokens and (reasoning is None or not reasoning.form.special_tokens):
        return sampling
    return replace(sampling, skip_special_tokens=False, spaces_between_special_tokens=False)


def _text(body: ChatRequest) -> str:
    """What the last message says."""
    content = body.messages[-1].get("content") or ""
    if isinstance(content, str):
        return content
    return "\n".join(part if isinstance(part, str) else str(part.get("text") or "") for part in content)
