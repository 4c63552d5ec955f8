"""From a body to the service's call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headrace.api.call import checked_salt, priority_of
from headrace.api.pooling.schema import InputBody, PairBody, PooledBody
from headrace.config.sections import ApiConfig
from headrace.core.errors import BadRequest, Unsupported
from headrace.core.pooling import PoolingParams, PoolingTask
from headrace.service import Conversation, Encoding, Pooling, Scoring

TokenIds = list[int]

_OLD_TASKS = ("encode", "score")


@dataclass(frozen=True, slots=True)
class Sender:
    """What is known of a request beside its body. `request_id`: that of the answer."""

    request_id: str
    priority_header: str | None


def given_inputs(body: InputBody, config: ApiConfig) -> list[str | TokenIds | Conversation]:
    """The inputs of a body, all of one kind. Raises `BadRequest` unless it has `input` or `messages`."""
    if (body.input is None) == (body.messages is None):
        raise BadRequest("Exactly one of input and messages must be given.", parameter="input")
    given: Any = body.messages if body.input is None else body.input
    if isinstance(given, str):
        return [given]
    first = given[0] if given else None
    if isinstance(first, int):
        return [given]
    if isinstance(first, dict):
        return [_conversation(given, body, config)]
    if isinstance(first, list) and first and isinstance(first[0], dict):
        return [_conversation(each, body, config) for each in given]
    if body.input is None:
        raise BadRequest("messages must not be empty.", parameter="messages")
    return given


def pooling(
    body: InputBody,
    inputs: Sequence[str | TokenIds],
    params: PoolingParams,
    sender: Sender,
    *,
    rendered: bool,
) -> Pooling:
    """`rendered`: the inputs are conversations in their template, which has the special tokens. Raises `BadRequest`."""
    add_special_tokens = not rendered if body.add_special_tokens is None else body.add_special_tokens
    return Pooling(
        inputs=inputs,
        params=params,
        request_id=sender.request_id,
        encoding=_encoding(body, add_special_tokens=add_special_tokens),
        priority=_priority(body, sender),
    )


def scoring(body: PairBody, queries: Sequence[str], documents: Sequence[str], sender: Sender) -> Scoring:
    """Raises `BadRequest`."""
    instruction = {} if body.instruction is None else {"instruction": body.instruction}
    return Scoring(
        queries=queries,
        documents=documents,
        request_id=sender.request_id,
        use_activation=use_activation(body),
        max_tokens_per_query=body.max_tokens_per_query,
        max_tokens_per_doc=body.max_tokens_per_doc,
        template_kwargs={**(body.chat_template_kwargs or {}), **instruction},
        encoding=_encoding(body, add_special_tokens=body.add_special_tokens),
        priority=_priority(body, sender),
    )


def pooling_task(asked: str | None, tasks: Sequence[PoolingTask]) -> PoolingTask:
    """The task of a /pooling request, for a model that can do `tasks`, its default first. Raises `BadRequest`."""
    if asked is None:
        return tasks[0]
    if asked in _OLD_TASKS:
        raise BadRequest(
            f"task {asked!r} is no longer one: name what is to be made, {', '.join(PoolingTask)}.",
            parameter="task",
            value=asked,
        )
    if asked not in tasks:
        raise BadRequest(
            f"This model cannot do the task {asked!r}; it can do: {', '.join(tasks)}. The server's "
            "--pooler-config.task says which of them it does where a request names none.",
            parameter="task",
            value=asked,
        )
    return PoolingTask(asked)


def use_activation(body: PooledBody) -> bool | None:
    """By whichever of its names. Raises `BadRequest` if they contradict each other."""
    given = {body.use_activation, body.normalize, body.softmax, body.activation} - {None}
    if len(given) > 1:
        names = "use_activation, normalize, softmax and activation"
        raise BadRequest(
            f"{names} are names of one switch; those given contradict each other.", parameter="use_activation"
        )
    return next(iter(given), None)


def _conversation(messages: Sequence[Mapping[str, Any]], body: InputBody, config: ApiConfig) -> Conversation:
    """Raises `BadRequest` for a template brought along, unless this server trusts them."""
    if body.chat_template is not None and not config.trust_request_chat_template:
        raise BadRequest(
            "This server takes no chat template from requests; --trust-request-chat-template lets them in.",
            parameter="chat_template",
        )
    return Conversation(
        messages=messages,
        add_generation_prompt=body.add_generation_prompt,
        continue_final_message=body.continue_final_message,
        chat_template_kwargs={**config.default_chat_template_kwargs, **(body.chat_template_kwargs or {})},
        chat_template=body.chat_template,
    )


def _encoding(body: PooledBody, *, add_special_tokens: bool) -> Encoding:
    if body.padding == "max_length":
        raise Unsupported(
            "padding='max_length' is not supported: inputs of any length run as they are, and need none.",
            parameter="padding",
            value=body.padding,
        )
    return Encoding(
        add_special_tokens=add_special_tokens,
        truncate_prompt_tokens=body.truncate_prompt_tokens,
        truncation_side=body.truncation_side,
    )


def _priority(body: PooledBody, sender: Sender) -> int:
    checked_salt(body.cache_salt)  # nothing is cached here, so that a salt has nothing to keep apart
    return priority_of(body.priority, sender.priority_header)
