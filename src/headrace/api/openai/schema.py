"""Bodies of requests; `api/record.py` says what all bodies have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal, Required

from pydantic import (
    ConfigDict,
    Field,
    PlainValidator,
    StrictInt,
    ValidatorFunctionWrapHandler,
    WithJsonSchema,
    WrapValidator,
)
from typing_extensions import TypedDict

from headrace.api.openai.structured import ResponseFormat
from headrace.api.record import TOKEN_IDS_SCHEMA, Body, StreamOptions, are_token_ids
from headrace.api.structured import ConstraintFields

Side = Literal["left", "right"]
Effort = Literal["none", "minimal", "low", "medium", "high", "xhigh", "max"]


def _early_stopping(value: Any) -> bool | Literal["never"]:
    if isinstance(value, bool) or value == "never":
        return value
    raise ValueError('must be true, false or "never"')


EarlyStopping = Annotated[
    bool | Literal["never"],
    PlainValidator(_early_stopping),  # a plain union would name its members in the error
    WithJsonSchema({"anyOf": [{"type": "boolean"}, {"const": "never"}]}),
]


class GenerationBody(Body, ConstraintFields):
    """What completions and chat have in common. Sampling values left out come from the generation config."""

    max_tokens: int | None = None
    n: int = 1
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    repetition_penalty: float | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    stop_token_ids: list[int] | None = None
    include_stop_str_in_output: bool = False
    ignore_eos: bool = False
    min_tokens: int = 0
    bad_words: list[str] | None = None
    allowed_token_ids: list[int] | None = None
    skip_special_tokens: bool = True
    spaces_between_special_tokens: bool = True
    use_beam_search: bool = False
    length_penalty: float = 1.0
    early_stopping: EarlyStopping | None = None
    """Left out, a search stops early only where that changes nothing."""
    response_format: ResponseFormat | None = None
    """The form of the answer. It wins over `structured_outputs`."""
    prompt_logprobs: StrictInt | None = None
    truncate_prompt_tokens: int | None = None
    truncation_side: Side | None = None
    stream: bool = False
    stream_options: StreamOptions | None = None
    echo: bool = False
    return_token_ids: bool = False
    return_tokens_as_token_ids: bool | None = None
    """Default: the server's flag of that name."""
    logprob_token_ids: list[int] | None = None
    priority: int = 0
    request_id: str | None = None
    cache_salt: str | None = None
    user: str | None = None
    """Accepted for the caller's own book-keeping; it changes nothing."""

    def tokens_as_ids(self, default: bool) -> bool:
        """Whether logprobs show tokens as ids; `default` where the body does not say."""
        return default if self.return_tokens_as_token_ids is None else self.return_tokens_as_token_ids


def _one_kind_of_prompt(value: Any) -> str | list[str] | list[int] | list[list[int]]:
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        if all(isinstance(item, str) for item in value) or are_token_ids(value):
            return value
        if all(isinstance(item, list) and are_token_ids(item) for item in value):
            return value
    raise ValueError("must be a string, a list of strings, a list of token ids or a list of lists of token ids")


Prompt = Annotated[
    str | list[str] | list[int] | list[list[int]],
    PlainValidator(_one_kind_of_prompt),
    WithJsonSchema(
        {
            "title": "Prompt",
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}},
                TOKEN_IDS_SCHEMA,
                {"type": "array", "items": TOKEN_IDS_SCHEMA},
            ],
        }
    ),
]


class CompletionRequest(GenerationBody):
    """POST /v1/completions."""

    NULL_REFUSED = frozenset({"n"})

    prompt: Prompt
    max_tokens: int = 16
    logprobs: StrictInt | None = None
    add_special_tokens: bool = True


class Message(TypedDict, total=False):
    """One turn. Keys beyond these reach the chat template as they are."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    role: Required[str]
    content: str | list[str | dict[str, Any]] | None


class FunctionDefinition(TypedDict, total=False):
    """A function that the model may call; `parameters` is a JSON schema."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    name: Required[Annotated[str, Field(min_length=1)]]
    description: str | None
    parameters: dict[str, Any] | None
    strict: bool | None


class ToolDefinition(TypedDict):
    """A tool as OpenAI has it."""

    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]

    type: Literal["function"]
    function: FunctionDefinition


def _as_given(value: Any, check: ValidatorFunctionWrapHandler) -> Any:
    check(value)
    return value


Tool = Annotated[ToolDefinition, WrapValidator(_as_given)]
"""Checked, and kept with its keys in their order: templates print it."""


@dataclass(frozen=True, slots=True)
class NamedFunction:
    """The tool choice that demands a call of one function."""

    name: str


def _tool_choice(value: Any) -> str | NamedFunction:
    match value:
        case "none" | "auto" | "required":
            return value
        case {"type": "function", "function": {"name": str(name)}}:
            return NamedFunction(name)
    raise ValueError('must be "none", "auto", "required" or {"type": "function", "function": {"name": "…"}}')


ToolChoice = Annotated[
    Literal["none", "auto", "required"] | NamedFunction,
    PlainValidator(_tool_choice),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "enum": ["none", "auto", "required"]},
                {
                    "type": "object",
                    "properties": {
                        "type": {"const": "function"},
                        "function": {
                            "type": "object",
                            "properties": {"name": {"type": "string"}},
                            "required": ["name"],
                        },
                    },
                    "required": ["type", "function"],
                },
            ]
        }
    ),
]


class Templated(Body):
    """What decides how a conversation is rendered."""

    messages: list[Message] | None = None
    tools: list[Tool] | None = None
    add_generation_prompt: bool = True
    continue_final_message: bool = False
    chat_template: str | None = None
    chat_template_kwargs: dict[str, Any] | None = None


class ChatRequest(GenerationBody, Templated):
    """POST /v1/chat/completions."""

    messages: list[Message]
    max_completion_tokens: int | None = None
    """Wins over `max_tokens`; with neither, the answer may fill the context."""
    logprobs: bool = False
    top_logprobs: StrictInt = 0
    add_special_tokens: bool = False
    documents: list[dict[str, str]] | None = None
    tool_choice: ToolChoice | None = None
    """Default: auto if there are tools, else none."""
    parallel_tool_calls: bool = True
    """False: only the first call of an answer counts."""
    reasoning_effort: Effort | None = None
    include_reasoning: bool = True
    return_prompt_text: bool = False


class TokenizeRequest(Templated):
    """POST /tokenize: either `prompt` or `messages`."""

    prompt: str | None = None
    add_special_tokens: bool | None = None
    """Default: true for a prompt, false for messages."""
    return_token_strs: bool = False


class DetokenizeRequest(Body):
    """POST /detokenize."""

    tokens: list[int]
